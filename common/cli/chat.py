"""Talk to a stage's model through its own chat template.

Usage: `just chat domain=medical`, or one question: `just chat domain=medical prompt="What is …?"`.

It decodes greedily, so that an answer can be repeated. It is not a server.
"""

from __future__ import annotations

from typing import Any

from common.config.resolve import Resolved
from common.console import Console
from common.engine.environment import prepare
from common.engine.plan import make_plan
from common.engine.repair import damage_of, require_unchanged
from common.errors import DataError, StoreError
from common.models.facts import context_of
from common.store.artifacts import Store
from common.store.manifest import MANIFEST
from common.store.runs import list_runs, run_of

MAX_NEW_TOKENS = 256


def talk(resolved: Resolved, stage: str | None, prompt: str | None, console: Console) -> None:
    """Answer one prompt, or hold a conversation until an empty line or end of input.

    Without `stage` it is the published one. Raises DataError when the stage has not been made.
    """
    steps = {step.node.name: step for step in make_plan(resolved).steps}
    if stage is None:
        card = steps["card"]
        metrics = card.artifact.manifest["metrics"] if card.state == "cached" and card.artifact is not None else {}
        stage = str(metrics.get("published", resolved.pipeline.publish))
        if stage not in resolved.pipeline.stages:
            raise StoreError(f"The card's {MANIFEST} says that '{stage}' is published, which makes no model here.")
    step = steps[stage]
    if step.state != "cached" or step.artifact is None:
        if message := damage_of(step, run_of(resolved)):
            raise StoreError(message)
        raise DataError(
            f"There is no finished {stage} of {resolved.config.domain} with these settings ({step.state}: "
            f"{step.reasons[0]}). Run `just run` with the same settings first, or name another run. "
            + list_runs(Store(resolved.out), resolved.config.domain)
        )
    require_unchanged({stage: step.artifact}, run_of(resolved))
    prepare(resolved.config.run, asks_hub=False)
    from common.models import checkpoint

    model, tokenizer = checkpoint.load(step.artifact.path, resolved.config.model)
    model.eval()
    if prompt is not None:
        console.lines(reply(model, tokenizer, [{"role": "user", "content": prompt}]))
        return
    console.line(f"{stage} of {resolved.config.domain}. An empty line ends the conversation.", always=True)
    while text := _ask():
        # Each question is asked alone, because the small models have learned single turns.
        console.lines(reply(model, tokenizer, [{"role": "user", "content": text}]))


def _ask() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""


def reply(model: Any, tokenizer: Any, messages: list[dict[str, str]]) -> str:
    """Return the model's answer to a conversation, up to its stop token."""
    import torch

    from common.models.rendering import encode_chat

    ids_BT = torch.tensor([encode_chat(tokenizer, messages, prompt=True)])
    room = context_of(model) - ids_BT.shape[1]
    if room < 1:
        raise DataError(f"The question is longer than the model's context of {context_of(model)} tokens.")
    with torch.inference_mode():
        output = model.generate(
            input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT),
            max_new_tokens=min(MAX_NEW_TOKENS, room), do_sample=False,
        )  # fmt: skip
    text: str = tokenizer.decode(output[0, ids_BT.shape[1] :], skip_special_tokens=True)
    return text.strip()
