"""Loads the reward models among a stage's inputs and puts them into its mix of rewards.

Usage: `mix = mix_of(context, settings, device="cpu")`; then `mix.score(answers)` as for any other mix.

A reward model reads the prompt and the answer through the chat template that it was trained with. Only differences of
its numbers were trained, so they are standardised: minus the mean over answers of held-out pairs, divided by their
standard deviation. A reward model is trained by `common.stages.reward`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common.config.answering import AnsweringSettings
from common.config.schema import ModelSettings
from common.errors import DataError
from common.models import checkpoint
from common.models.contracts import check_reward_model
from common.models.facts import context_of
from common.models.finite import require_finite
from common.models.rendering import encode_chat
from common.rewards.mix import Mix, Scorer
from common.rewards.own import own_names, verifiers_with
from common.rewards.verifiers import VERIFIERS, Answer
from common.stage import StageContext
from common.store.artifacts import Artifact

BATCH = 64


def mix_of(context: StageContext, settings: AnsweringSettings, device: str) -> Mix:
    """Build the mix of a stage's rewards. Raises ContractError for a reward model with another tokenizer."""
    names = {str(given["model"]) for given in settings.rewards.values() if "model" in given}
    models: dict[str, Scorer] = {}
    for name in sorted(names):
        check_reward_model(name, context.inputs[name].path, context.parent_artifact.path)
        models[name] = load_scorer(
            context.inputs[name], context.config.model, device, bounded=settings.order == "ranked"
        )
    verifiers = verifiers_with(context.rewards_file) if own_names(settings) else VERIFIERS
    return Mix.of(settings.rewards, settings.order, models, verifiers)


def load_scorer(artifact: Artifact, settings: ModelSettings, device: str, *, bounded: bool = False) -> Scorer:
    """Return a function that scores answers with a reward model, standardised; `bounded` squashes them to 0 to 1."""
    from scipy.special import expit

    model = checkpoint.load_reward_model(artifact.path, settings).to(device).eval()
    tokenizer = checkpoint.load_tokenizer(artifact.path, settings)
    figures = {key: artifact.manifest["metrics"][key] for key in ("reward_mean", "reward_spread")}
    require_finite(figures.items(), f"The reward model {artifact.stage}", "Make it again with `just rerun`.")
    mean, deviation = map(float, figures.values())

    def score(answers: Sequence[Answer]) -> list[float]:
        dialogues = [[*answer.prompt, {"role": "assistant", "content": answer.text}] for answer in answers]
        rows = [encode_chat(tokenizer, dialogue) for dialogue in dialogues]
        numbers = [(reward - mean) / deviation for reward in rewards_of(model, rows, tokenizer.pad_token_id)]
        return [float(expit(number)) for number in numbers] if bounded else numbers

    return score


def rewards_of(model: Any, rows: Sequence[Sequence[int]], pad_id: int) -> list[float]:
    """Return a reward for each conversation, given as token ids; conversations of similar length share a batch.

    A conversation that is longer than the model's context loses its beginning.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    device = next(model.parameters()).device
    room = context_of(model)
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    rewards = torch.zeros(len(rows))
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            cut = [torch.tensor(rows[place][-room:]) for place in batch]
            ids_BT = pad_sequence(cut, batch_first=True, padding_value=pad_id).to(device)
            mask_BT = pad_sequence([torch.ones_like(ids) for ids in cut], batch_first=True).to(device)
            rewards[batch] = model(input_ids=ids_BT, attention_mask=mask_BT).logits[:, 0].float().cpu()
    model.train(was_training)
    found = [float(reward) for reward in rewards]
    require_finite(
        [("the reward of an answer", found)], "The reward model", "Train it again, or give another.", DataError
    )
    return found
