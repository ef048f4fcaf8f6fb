"""Where pinned libraries (requirements.lock) do something else than a training needs: each change is a function.

Usage: `class Trainer(without_extras(SFTTrainer)): …`; `float32_adapter(trainer.model)`; see each function.

Each says what the library does, and in which version. `tests/training/test_patches.py` fails when the library no longer
needs one of them: remove it then. Attention is no patch: transformers has a register for it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from common.models.rendering import encode_chat
from common.training.distributed import ranks
from common.training.rows.mismatched import mismatched

REFERRING = ("dpo", "kto")  # trainers of TRL that shard a reference
SCORING = ("dpo", "kto", "grpo", "rloo")  # trainers of TRL that ask the model for log-probabilities
AddHead = Callable[..., None]
LIKELIHOOD = 4  # the place of the likelihood in what ORPOTrainer.concatenated_forward returns


@functools.cache
def without_extras(trainer_class: Any) -> Any:
    """Return a trainer that writes no model cards and counts no floating point operations.

    TRL 1.16 writes a card for each trainer checkpoint; ours is written once, for the whole chain. transformers 5.23
    walks over all parameters in every micro batch to count; `common.cost` estimates once. No option turns either off.
    """

    class WithoutExtras(trainer_class):  # type: ignore[misc] # TRL is untyped
        def create_model_card(self, *args: Any, **options: Any) -> None:
            return

        def floating_point_ops(self, inputs: Any) -> int:
            return 0

    return WithoutExtras


def weighted_by_tokens(trainer_class: Any, count: Callable[[Mapping[str, Any]], int]) -> Any:
    """Return a trainer that knows each micro batch's share of a step; `count` says how many tokens a batch learns.

    `self.share` is the number of tokens that the present micro batch learns, in units of the mean over all micro
    batches of the step and all processes.

    TRL 1.16: DPO and ORPO take the mean over the tokens of each micro batch, and then the mean of those means. A short
    batch weighs as much as a long one, and another split of the same pairs gives another loss. SFTTrainer needs none
    of this: transformers gives it the number of the whole step's tokens.
    """

    class Weighted(trainer_class):  # type: ignore[misc] # TRL is untyped
        share = 1.0

        def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
            batches, number = super().get_batch_samples(epoch_iterator, num_batches, device)
            counts = [count(batch) for batch in batches]
            totals = ranks.all_gather([sum(counts), len(counts)])
            tokens, pieces = (sum(row[place] for row in totals) for place in (0, 1))
            self._shares = deque(number * pieces / tokens for number in counts) if tokens else deque()
            return batches, number

        def training_step(self, *args: Any, **options: Any) -> Any:
            self.share = self._shares.popleft() if self._shares else 1.0
            return super().training_step(*args, **options)

    return Weighted


@functools.cache
def token_dpo_trainer() -> Any:
    """Return a DPOTrainer over rows that are tokenised already; its term `sft` is a mean over a step's chosen tokens.

    TRL 1.16: see `weighted_by_tokens`; `_compute_loss` is the only place where the terms have their weights. Its own
    tokenising reads names of control tokens in a text as the tokens.
    """
    from trl import DPOTrainer

    def learned(batch: Mapping[str, Any]) -> int:
        chosen, _ = batch["completion_mask"].chunk(2)
        return int(chosen[:, 1:].sum())

    class TokenDpoTrainer(weighted_by_tokens(DPOTrainer, learned)):  # type: ignore[misc] # TRL is untyped
        loss_weights: list[float]

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
            weights: list[float] = self.loss_weights
            pairs = zip(self.loss_types, weights, strict=True)
            self.loss_weights = [weight * self.share if kind == "sft" else weight for kind, weight in pairs]
            try:
                return super()._compute_loss(model, inputs, return_outputs)
            finally:
                self.loss_weights = weights

    return TokenDpoTrainer


@functools.cache
def token_kto_trainer() -> Any:
    """Return a KTOTrainer over rows that are tokenised already: `prompt_ids`, `completion_ids` and `label`.

    TRL 1.16: its own tokenising reads names of control tokens in a text as the tokens. It takes the row before as a
    row's mismatched answer, and where pairs stand side by side that is the other answer to the same prompt.
    """
    from datasets import concatenate_datasets
    from trl import KTOConfig, KTOTrainer
    from trl.trainer.kto_trainer import global_then_local_main_first

    class TokenKtoTrainer(KTOTrainer):  # type: ignore[misc] # TRL is untyped
        def _prepare_dataset(self, dataset: Any, tokenizer: Any, args: KTOConfig, name: str) -> Any:
            if not self.calculate_KL:
                return dataset
            sources = mismatched([tuple(ids) for ids in dataset["prompt_ids"]], args.per_device_train_batch_size)
            answers = dataset.select_columns("completion_ids").rename_column("completion_ids", "KL_completion_ids")
            with global_then_local_main_first():
                return concatenate_datasets([dataset, answers.select(sources)], axis=1)

    return TokenKtoTrainer


@functools.cache
def text_prompt_trainer(trainer_class: Any) -> Any:
    """Return a trainer of answers to prompts that reads names of control tokens in a prompt as text.

    TRL 1.16: GRPO and RLOO read them as the tokens. Nor can a reward function say that nothing of an answer is to be
    learned: without a reward its advantage is 0, but GRPO's KL term learns its tokens, and the log has its text. Here
    answers whose place in `kept` of the reward is False have no part in the loss.
    """
    import torch
    from trl import GRPOTrainer

    masks = issubclass(trainer_class, GRPOTrainer)  # RLOO's KL term is in its advantages

    class TextPromptTrainer(trainer_class):  # type: ignore[misc] # TRL is untyped
        def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
            return [encode_chat(self.processing_class, prompt, prompt=True) for prompt in prompts], None, {}

        def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
            output: dict[str, Any] = super()._generate_and_score_completions(inputs)
            kept = torch.tensor([reward.kept for reward in self.reward_funcs]).all(dim=0)
            if not kept.all():
                kept = kept.to(output["advantages"].device)
                output["advantages"] = output["advantages"] * kept
                if masks:
                    learned = output.get("tool_mask", output["completion_mask"])
                    output["tool_mask"] = learned * kept.unsqueeze(1).to(learned.dtype)  # of the loss alone
            return output

    return TextPromptTrainer


@functools.cache
def token_orpo_trainer() -> Any:
    """Return an ORPOTrainer over rows that are tokenised already; its likelihood is a mean over a step's chosen tokens.

    TRL 1.16: see `weighted_by_tokens`; and `tokenize_row` joins prompt and answer as texts, without the chat template.
    """
    from trl.experimental.orpo import ORPOTrainer

    def learned(batch: Mapping[str, Any]) -> int:
        return int(batch["chosen_attention_mask"][:, 1:].sum())

    class TokenOrpoTrainer(weighted_by_tokens(ORPOTrainer, learned)):  # type: ignore[misc] # TRL is untyped
        def concatenated_forward(self, model: Any, batch: Any) -> Any:
            found = super().concatenated_forward(model, batch)
            return (*found[:LIKELIHOOD], found[LIKELIHOOD] * self.share, *found[LIKELIHOOD + 1 :])

        def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
            start = feature["start"]
            row: dict[str, Any] = {"prompt_input_ids": feature["chosen_ids"][:start]}
            row["prompt_attention_mask"] = [1] * start
            for side in ("chosen", "rejected"):
                ids = feature[f"{side}_ids"]
                row[f"{side}_input_ids"] = ids
                row[f"{side}_attention_mask"] = [1] * len(ids)
                row[f"{side}_labels"] = [-100] * start + ids[start:]
            return row

    return TokenOrpoTrainer


def float32_adapter(model: Any) -> None:
    """Train an adapter in float32, as peft does by itself. A model without an adapter stays as it is.

    TRL 1.16: trainers narrow the adapter of a quantised base to bfloat16, and ORPO's the embedding and the head too. In
    bfloat16 an update below about 1/256 of a weight is lost, and preference tuning makes smaller ones.
    """
    import torch
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        return
    for parameter in model.parameters():
        packed = type(parameter) is not torch.nn.Parameter  # bitsandbytes' own classes
        if parameter.is_floating_point() and not packed:
            parameter.data = parameter.data.float()


def name_parts(model: Any) -> None:
    """Let TRL find a model's backbone and how many experts it has, where both have other names. No file changes by it.

    TRL 1.16: its head reads `base_model`, which Llama 4 of transformers 5.23 names wrongly and so is itself. The loss
    that evens the load of experts asks for `num_experts`, which Granite MoE and JetMoe do not know.
    """
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    if bare.base_model is bare and hasattr(bare, "model"):
        bare.base_model_prefix = "model"
    config = bare.config.get_text_config()
    if hasattr(config, "num_local_experts") and not hasattr(config, "num_experts"):
        type(config).attribute_map = {**config.attribute_map, "num_experts": "num_local_experts"}


def note_losses(trainer: Any, note: Callable[[Any], None]) -> None:
    """Call `note` with the loss of every micro batch, still on its device.

    transformers 5.23: callbacks get the mean over the steps since the last log line, and never the loss of a step.
    """
    _note_results(trainer, "training_step", note)


def note_gradients(trainer: Any, note: Callable[[Any], None]) -> None:
    """Call `note` with the norm of every step's gradient before clipping, still on its device.

    transformers 5.23: callbacks get that of the steps that are logged. Where gradients are scaled, a step whose norm is
    no number is left out by the scaler, which then scales less; `note` is called all the same.
    """
    _note_results(trainer, "_get_grad_norm", note)


def _note_results(trainer: Any, name: str, note: Callable[[Any], None]) -> None:
    """Call `note` with everything that one of a trainer's methods returns."""
    method = getattr(trainer, name)

    def noting(*args: Any, **options: Any) -> Any:
        found = method(*args, **options)
        note(found)
        return found

    setattr(trainer, name, noting)


@contextlib.contextmanager
def quiet_trackio() -> Iterator[None]:
    """Let trackio print nothing.

    trackio 0.43 prints seven lines for each run, and has no option for it.
    """
    import trackio
    import trackio.run
    import trackio.utils

    modules: list[Any] = [trackio, trackio.run, trackio.utils]
    for module in modules:
        module.print = lambda *_, **__: None  # found before the builtin one
    try:
        yield
    finally:
        for module in modules:
            del module.print


@contextlib.contextmanager
def _replaced(trainers: Sequence[str], name: str, ours: Any) -> Iterator[None]:
    """Let TRL's trainers call `ours` where they call a function of theirs."""
    modules: list[Any] = [importlib.import_module(f"trl.trainer.{trainer}_trainer") for trainer in trainers]
    theirs = [getattr(module, name) for module in modules]
    try:
        for module in modules:
            setattr(module, name, ours)
        yield
    finally:
        for module, original in zip(modules, theirs, strict=True):
            setattr(module, name, original)


def shard_references_by_layer() -> contextlib.AbstractContextManager[None]:
    """Let trainers that are built inside shard their reference layer by layer, as accelerate does the learner.

    TRL 1.16 makes the reference one unit under FSDP2, so each GPU would gather the whole model for every batch.
    """
    return _replaced(REFERRING, "prepare_fsdp", shard_reference)


def shard_reference(model: Any, accelerator: Any) -> Any:
    """Return a model that only reads, sharded with a unit per layer; the first process's weights are the ones taken."""
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model

    return fsdp2_prepare_model(accelerator, model.requires_grad_(False)).eval()


def score_with(add_head: AddHead) -> contextlib.AbstractContextManager[None]:
    """Let trainers that are built inside score answers by our head (`common.training.speed.scoring`).

    TRL 1.16 computes padding like tokens, and without Triton its head reads every position, prompts included.
    """
    return _replaced(SCORING, "add_fused_lm_head", add_head)


def use_one_gpu(arguments: Any) -> Any:
    """Return a trainer's arguments with one GPU, however many a process sees.

    transformers 5.23 splits each batch over all visible GPUs (`DataParallel`), so a step learns from several times its
    tokens.
    """
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def forget_prepared(model: Any) -> None:
    """Let accelerate prepare a model that a trainer has prepared before.

    accelerate 1.15 marks the bare model and later leaves out autocast silently: a second training is in float32.
    """
    vars(model).pop("_is_accelerate_prepared", None)


def sum_in_float32(plugin: Any) -> None:
    """Let FSDP2 compute in a narrow type, but sum gradients over processes in float32 and leave outputs as they are.

    accelerate 1.15 makes all three narrow: gradients of many processes lose bits in each sum, and log-probabilities and
    losses, which are computed in float32, are rounded to three digits.
    """
    import torch
    from torch.distributed.fsdp import MixedPrecisionPolicy

    policy = plugin.mixed_precision_policy
    if policy is None or policy.param_dtype in (None, torch.float32):
        return
    plugin.mixed_precision_policy = MixedPrecisionPolicy(
        param_dtype=policy.param_dtype, reduce_dtype=torch.float32, output_dtype=None,
        cast_forward_inputs=policy.cast_forward_inputs,
    )  # fmt: skip


def uncompile(layer: Any) -> None:
    """Let a layer run uncompiled again: torch 2.13 has no way back from `Module.compile`."""
    layer._compiled_call_impl = None
