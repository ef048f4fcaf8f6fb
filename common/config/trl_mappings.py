"""One table of what each option of a pasted TRL block is here: a setting of ours, nothing, or refused.

Usage: `rules_of(SftSettings)`; `kept = translate(block, merged)` makes settings of a block's options.

What a rule does is `common.config.trl_rules`, how layers meet is `common.config.trl_block`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from common.config.answering import OnlineSettings
from common.config.overrides import flatten
from common.config.stages import PreferenceSettings
from common.config.trl_block import FROM, Given, TrlBlock, plainly
from common.config.trl_rules import (
    Rule,
    answers_used_once,
    batch,
    best,
    by_processes,
    completion_only,
    epochs,
    is_,
    of_trl,
    packing,
    pushed,
    refused,
    report_to,
    reward_weights,
    seed,
    shuffled,
    steps,
    unused,
)
from common.config.trl_schedules import kind_of_schedule, scheduler_options, warmup
from common.errors import ConfigError

STORED = "results are in the store: out=<folder>"
BY_TIME = "trainer checkpoints are written by time: run.checkpoint_minutes"
EXAM = "the exam evaluates"
KEPT_ROWS = f"{EXAM}, and validation.share keeps rows to measure by"
OF_MODEL = "belongs to the model; set {} instead."
COMMON: dict[str, Rule] = {
    **dict.fromkeys(("seed", "data_seed"), seed),
    "lr_scheduler_type": kind_of_schedule,
    "lr_scheduler_kwargs": scheduler_options,
    **dict.fromkeys(("warmup_ratio", "warmup_steps"), warmup),
    **dict.fromkeys(("output_dir", "overwrite_output_dir", "logging_dir"), unused(STORED)),
    **dict.fromkeys(("do_train", "do_predict", "local_rank"), unused("a stage trains by itself")),
    "resume_from_checkpoint": refused(
        "cannot be set here: a stage resumes by itself, and model.path=<folder> starts from a checkpoint.", True
    ),
    **dict.fromkeys(
        ("save_strategy", "save_steps", "save_only_model", "save_on_each_node", "save_safetensors"), unused(BY_TIME)
    ),
    **dict.fromkeys(("remove_unused_columns", "dataset_num_proc"), unused("rows are prepared here")),
    "group_by_length": unused("the order of rows is seeded"),
    "load_best_model_at_end": best,
    "report_to": report_to,
    **dict.fromkeys(("push_to_hub", "hub_model_id"), pushed),
    **dict.fromkeys(
        ("hub_strategy", "hub_private_repo", "hub_always_push", "hub_revision"),
        unused("nothing is pushed while a stage trains: publish.to, publish.private"),
    ),
    "hub_token": refused("belongs in the environment variable HF_TOKEN."),
    "use_cpu": refused("is derived here; set run.device=cpu instead."),
    "no_cuda": refused("is derived here; set run.device=cpu instead."),
    "auto_find_batch_size": refused("would change the batch; set run.micro_batch_tokens instead, for memory."),
    "trust_remote_code": refused(OF_MODEL.format("model.trust_remote_code=true")),
    "model_init_kwargs": refused(OF_MODEL.format("model.dtype, model.revision or run.attention")),
    "model_name_or_path": refused(OF_MODEL.format("model.path")),
    "model_revision": refused(OF_MODEL.format("model.revision"), "main"),
    **dict.fromkeys(("torch_dtype", "dtype"), refused(OF_MODEL.format("model.dtype and precision"), "auto")),
    "attn_implementation": refused("is derived here; set run.attention instead."),
    **dict.fromkeys(
        ("dataset_name", "dataset_config", "dataset_train_split", "dataset_test_split"),
        refused("names data, which are the sources of a manifest: data=<file>."),
    ),
    "use_peft": refused("is derived here; set {stage}.peft=lora instead."),
    "load_in_4bit": refused("is derived here; set {stage}.peft=qlora instead."),
    "load_in_8bit": refused("is derived here; set {stage}.peft=qlora and {stage}.quantization.load_in_8bit=true."),
    **{
        name: refused(f"belongs to the adapter; set {{stage}}.lora.{key} instead.")
        for name, key in {
            "lora_r": "r", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout", "use_dora": "use_dora",
            "lora_target_modules": "target_modules", "lora_modules_to_save": "modules_to_save",
            "use_rslora": "use_rslora",
        }.items()
    },
    **dict.fromkeys(("fsdp", "fsdp_config"), by_processes("run.parallelism=fsdp2")),
    "deepspeed": by_processes("run.parallelism=zero3"),
    **dict.fromkeys(("accelerator_config", "parallelism_config"), by_processes("run.parallelism")),
    **dict.fromkeys(
        (
            "eval_strategy", "evaluation_strategy", "eval_steps", "do_eval", "eval_on_start", "eval_delay",
            "per_device_eval_batch_size", "eval_accumulation_steps", "metric_for_best_model", "greater_is_better",
            "prediction_loss_only", "batch_eval_metrics", "include_for_metrics",
        ),
        unused(EXAM),
    ),
}  # fmt: skip
BATCHES: dict[str, Rule] = dict.fromkeys(("per_device_train_batch_size", "gradient_accumulation_steps"), batch)
BUDGETS: dict[str, Rule] = {"max_steps": steps, "num_train_epochs": epochs}
LENGTHS: dict[str, Rule] = dict.fromkeys(("max_length", "max_seq_length"), is_("sequence_length"))
MEASURED = {name: unused(KEPT_ROWS) for name in ("eval_strategy", "evaluation_strategy", "eval_steps", "do_eval")}
TOKENS: dict[str, Rule] = {
    **LENGTHS, **BATCHES, **BUDGETS,
    "packing": packing,
    "packing_strategy": of_trl("", "bfd"),
    "dataset_text_field": of_trl("a manifest names the fields of its rows"),
    **dict.fromkeys(("padding_free", "pad_to_multiple_of", "eval_packing"), of_trl("rows are packed, without padding")),
    "truncation_mode": of_trl("", "keep_start"),
    "shuffle_dataset": of_trl("", True),
    "train_sampling_strategy": of_trl("", "random"),
    **dict.fromkeys(("dataset_kwargs", "eos_token", "pad_token", "chat_template_path"), of_trl()),
    "completion_only_loss": completion_only,
    **COMMON, **MEASURED,
}  # fmt: skip
PAIRWISE: dict[str, Rule] = {
    **LENGTHS, **BATCHES, **BUDGETS,
    **dict.fromkeys(
        ("max_prompt_length", "max_completion_length"), unused("sequence_length is of prompt and answer together")
    ),
    **COMMON,
}  # fmt: skip
REWARDED: dict[str, Rule] = {
    "num_generations": is_("samples"), "max_completion_length": is_("answer_tokens"),
    "max_prompt_length": is_("prompt_tokens"), **BATCHES, **BUDGETS,
    **dict.fromkeys(("num_iterations", "steps_per_generation", "generation_batch_size"), answers_used_once),
    "reward_weights": reward_weights,
    "shuffle_dataset": shuffled,
    "logging_steps": unused("every step is logged"),
    "sync_ref_model": refused("cannot be set here: the reference is the stage before, from the first step to the last"
                              ". Leave it out."),
    **COMMON,
}  # fmt: skip


def rules_of(settings: type[BaseModel]) -> dict[str, Rule]:
    """Return the options of TRL's that a kind of stage has words of its own for, in the order in which they count."""
    if not getattr(settings, "trainer", ""):
        return {}
    if issubclass(settings, OnlineSettings):
        return REWARDED
    return PAIRWISE if issubclass(settings, PreferenceSettings) else TOKENS


def translate(block: TrlBlock, merged: Mapping[str, Any]) -> Mapping[str, Any]:
    """Make settings of ours of a block's options; return the options that stay with TRL. Raises ConfigError.

    `merged` is what all layers say in our words.
    """
    block.merged = merged
    for name, rule in rules_of(block.settings).items():
        if name in block.words:
            rule(block, name)
    return {name: block.words[name].value for name in block.kept}


def run_wide(
    blocks: Sequence[TrlBlock], layers: Sequence[tuple[str, Mapping[str, Any]]]
) -> Iterator[tuple[str, Given]]:
    """Yield the settings of the whole run that stages say in TRL's words. Raises ConfigError where two differ.

    `layers` are labels and what they say in our own words, the strongest last.
    """
    found: dict[str, tuple[TrlBlock, Given]] = {}
    for block in blocks:
        for key, given in block.run_wide.items():
            other, before = found.setdefault(key, (block, given))
            if before.value != given.value:
                raise ConfigError(
                    f"{other.stage}.train gives {key}={plainly(before.value)} and {block.stage}.train "
                    f"{key}={plainly(given.value)}, and a run has one. Leave out one."
                )
    for key, (block, given) in found.items():
        name = key.rpartition(".")[2]
        for label, values in layers[given.rank[0] :]:
            own = flatten(values).get(key, given.value)
            if own == given.value:
                continue
            if key.startswith("run."):  # it changes no result, so the stronger layer simply holds
                break
            raise ConfigError(
                f"{block.stage}.train.{name}={plainly(given.value)} ({given.label}) and {key}={plainly(own)} ({label}) "
                "contradict each other. Leave out one."
            )
        else:
            yield key, replace(given, label=f"{given.label}{FROM}{block.stage}.train.{name}")
