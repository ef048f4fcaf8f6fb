"""A pasted block of TRL's: what each option becomes, what has no effect, and what is refused with one line."""

from __future__ import annotations

from typing import Any

import pytest

from common.config.answering import GrpoSettings
from common.config.stages import DpoSettings, SftSettings
from common.config.trl_mappings import PAIRWISE, REWARDED, TOKENS, rules_of
from common.config.trl_options import OLDER, options_of
from common.errors import ConfigError
from tests.config.pasting import pasted, run, settings_of, told

# Stage, what is pasted, what it is in our words.
MEANT: list[tuple[str, str, dict[str, Any]]] = [
    ("sft", "num_train_epochs: 3", {"epochs": 3.0, "tokens": None}),
    ("sft", "num_train_epochs: '2'", {"epochs": 2.0}),
    ("sft", "{max_steps: 10, num_train_epochs: 3}", {"tokens": 10240, "epochs": None}),
    ("sft", "{max_steps: -1, num_train_epochs: 3}", {"epochs": 3.0}),
    ("sft", "max_steps: 1e1", {"tokens": 10240}),
    ("sft", "max_length: 256", {"sequence_length": 256}),
    ("sft", "max_seq_length: '256'", {"sequence_length": 256}),
    (
        "sft",
        "{max_length: 256, per_device_train_batch_size: 4, gradient_accumulation_steps: 2}",
        {"batch_tokens": 2048, "micro_batch_tokens": 1024},
    ),
    ("sft", "per_device_train_batch_size: 4", {"batch_tokens": 512, "micro_batch_tokens": 512}),
    ("sft", "gradient_accumulation_steps: 2", {"batch_tokens": 2048, "micro_batch_tokens": 1024}),
    ("sft", "lr_scheduler_type: cosine", {"schedule.kind": "cosine", "schedule.floor": 0.0}),
    ("sft", "lr_scheduler_type: linear", {"schedule.kind": "linear", "schedule.floor": 0.0}),
    ("sft", "lr_scheduler_type: constant", {"schedule.kind": "constant", "schedule.warmup": 0.0}),
    ("sft", "lr_scheduler_type: constant_with_warmup", {"schedule.kind": "constant", "schedule.warmup": 0.05}),
    ("sft", "warmup_ratio: 0.1", {"schedule.warmup": 0.1}),
    ("sft", "warmup_steps: 100", {"schedule.warmup": 100.0}),
    ("sft", "warmup_steps: 0.1", {"schedule.warmup": 0.1}),
    ("sft", "{warmup_steps: 0, warmup_ratio: 0.1}", {"schedule.warmup": 0.1}),
    ("sft", "{warmup_steps: 7, warmup_ratio: 0.1}", {"schedule.warmup": 7.0}),
    ("sft", "packing: true", {"packing": "isolated"}),
    ("sft", "{packing: true, packing_strategy: bfd}", {"packing": "isolated"}),
    (
        "sft",
        "{packing: true, packing_strategy: wrapped}",
        {"packing": "trl", "train.packing": True, "train.packing_strategy": "wrapped"},
    ),
    ("sft", "{packing: false, eos_token: x}", {"packing": "trl", "train.packing": False, "train.eos_token": "x"}),
    ("sft", "{bf16: 'False', fp16: 'no'}", {"precision": "float32"}),
    ("sft", "learning_rate: '2e-5'", {"train.learning_rate": 2e-5}),
    ("dpo", "{num_train_epochs: 2, max_length: 64}", {"epochs": 2.0, "sequence_length": 64}),
    ("dpo", "max_steps: 50", {"steps": 50}),
    (
        "dpo",
        "{per_device_train_batch_size: 2, gradient_accumulation_steps: 4}",
        {"batch_pairs": 8, "micro_batch_tokens": 512},
    ),
]
OTHERS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("kto", "kto", "per_device_train_batch_size: 8", {"batch_pairs": 4, "micro_batch_tokens": 1024}),
    ("orpo", "orpo", "{max_length: 200, max_completion_length: 100}", {"sequence_length": 200}),
    ("rlhf", "reward", "{per_device_train_batch_size: 8, max_steps: 3}", {"batch_pairs": 8, "steps": 3}),
    (
        "grpo",
        "grpo",
        "{num_generations: 4, per_device_train_batch_size: 8, gradient_accumulation_steps: 3}",
        {"samples": 4, "prompts_per_step": 6, "micro_batch_tokens": 8 * (256 + 96)},
    ),
    ("grpo", "grpo", "{max_prompt_length: 64, max_completion_length: 32}", {"prompt_tokens": 64, "answer_tokens": 32}),
    ("grpo", "grpo", "num_train_epochs: 2", {"epochs": 2.0}),
    ("rloo", "rloo", "{max_steps: 30, num_train_epochs: 2}", {"steps": 30, "epochs": None}),
    ("grpo", "grpo", "{num_iterations: 1, shuffle_dataset: true, generation_batch_size: 128}", {"steps": 60}),
]


@pytest.mark.parametrize(
    ("pipeline", "stage", "text", "expected"), [*(("full", *case) for case in MEANT), *OTHERS], ids=str
)
def test_what_means_the_same_is_taken_as_ours(pipeline: str, stage: str, text: str, expected: dict[str, Any]) -> None:
    found = settings_of(pasted(stage, text, pipeline), stage)
    assert {key: found[key] for key in expected} == expected


def test_processes_count_as_they_do_for_trl() -> None:
    text = "{per_device_train_batch_size: 4, gradient_accumulation_steps: 2}"
    found = settings_of(pasted("sft", text, **{"run.processes": "2"}), "sft")
    assert (found["batch_tokens"], found["micro_batch_tokens"]) == (2 * 4 * 2 * 128, 4 * 128)


def test_the_seed_is_that_of_the_run() -> None:
    found = pasted("sft", "{seed: 7, data_seed: 7}")
    assert found.config.seed == 7
    assert found.origins["seed"] == "command line, from sft.train.seed"
    assert "seed -> seed=7, for the whole run" in told(found)


def test_best_weights_are_kept_where_rows_are_kept_to_choose_by() -> None:
    found = pasted("sft", "{load_best_model_at_end: true}", **{"sft.validation.share": "0.1"})
    assert settings_of(found, "sft")["validation.keep"] == "best"
    assert "the best weights by held-out prompts are kept" in told(
        pasted("grpo", "{load_best_model_at_end: true}", "grpo")
    )


# Options without effect on any result, and what is said of them.
WITHOUT_EFFECT = [
    ("output_dir: somewhere", "results are in the store"),
    ("{save_steps: 5, save_strategy: epoch, save_only_model: true}", "trainer checkpoints are written by time"),
    ("eval_strategy: epoch", "the exam evaluates, and validation.share keeps rows to measure by"),
    ("per_device_eval_batch_size: 4", "the exam evaluates"),
    ("remove_unused_columns: true", "rows are prepared here"),
    ("dataset_text_field: body", "a manifest names the fields of its rows"),
    ("hub_private_repo: true", "nothing is pushed while a stage trains"),
    ("do_train: true", "a stage trains by itself"),
    ("group_by_length: true", "the order of rows is seeded"),
    ("{lr_scheduler_type: constant, warmup_ratio: 0.1}", "a constant rate has no warm-up"),
]


@pytest.mark.parametrize(("text", "expected"), WITHOUT_EFFECT)
def test_what_changes_no_result_is_shown_and_leaves_no_trace(text: str, expected: str) -> None:
    found = pasted("sft", text)
    assert expected in told(found)
    if "constant" not in text:
        assert found.config == run().config


@pytest.mark.parametrize(
    "text",
    [
        "push_to_hub: false", "hub_model_id: null", "report_to: none", "report_to: []", "deepspeed: null", "fsdp: ''",
        "eval_strategy: 'no'", "load_best_model_at_end: false", "resume_from_checkpoint: None", "use_cpu: false",
        "trust_remote_code: false", "auto_find_batch_size: false", "eos_token: null", "shuffle_dataset: false",
        "completion_only_loss: true", "packing_strategy: bfd", "max_length: null", "lr_scheduler_kwargs: {}",
        "model_init_kwargs: null", "truncation_mode: keep_start", "torch_dtype: auto", "max_steps: -1",
    ],
)  # fmt: skip
def test_what_asks_for_nothing_is_accepted(text: str) -> None:
    assert pasted("sft", text).config == run().config


REFUSED = [
    ("sft", "push_to_hub: true", "cannot be set here: set publish.to=hub:<owner>/<name> instead, which publishes"),
    ("sft", "hub_model_id: me/mine", "cannot be set here: set publish.to=hub:me/mine instead"),
    ("sft", "hub_token: hf_secret", "belongs in the environment variable HF_TOKEN."),
    ("sft", "resume_from_checkpoint: out/checkpoint-5", "cannot be set here: a stage resumes by itself"),
    ("sft", "use_cpu: true", "is derived here; set run.device=cpu instead."),
    ("sft", "auto_find_batch_size: true", "would change the batch; set run.micro_batch_tokens instead"),
    ("sft", "model_init_kwargs: {dtype: bfloat16}", "belongs to the model; set model.dtype"),
    ("sft", "model_name_or_path: o/n", "belongs to the model; set model.path instead."),
    ("sft", "attn_implementation: sdpa", "is derived here; set run.attention instead."),
    ("sft", "dataset_name: o/n", "names data, which are the sources of a manifest: data=<file>."),
    ("sft", "use_peft: true", "is derived here; set sft.peft=lora instead."),
    ("sft", "lora_r: 16", "belongs to the adapter; set sft.lora.r instead."),
    ("sft", "fsdp: full_shard", "is derived here; set run.parallelism=fsdp2 and run.processes instead."),
    ("sft", "deepspeed: x.json", "is derived here; set run.parallelism=zero3 and run.processes instead."),
    ("sft", "load_best_model_at_end: true", "needs rows to choose by; add sft.validation.share=0.01, or leave it out."),
    ("dpo", "load_best_model_at_end: true", "cannot be set here: the last weights are kept."),
    ("sft", "{seed: 1, data_seed: 2}", "is another than seed=1. A run has one seed."),
    ("sft", "packing_strategy: wrapped", "belongs to TRL's own row preparation; set sft.packing=trl to use it."),
    ("sft", "eos_token: '<|im_end|>'", "belongs to TRL's own row preparation; set sft.packing=trl to use it."),
    ("sft", "completion_only_loss: false", "is not so here: set sft.train.assistant_only_loss=false instead."),
    ("cpt", "completion_only_loss: true", "is not so here: set a stage of kind sft instead."),
    ("sft", "max_length: long", "(command line): expected int | None, got 'long' (str)."),
    ("sft", "max_length: 8", "sft.sequence_length (command line, from train.max_length): expected at least 16; got 8."),
    ("sft", "num_train_epochs: 0", "sft.epochs (command line, from train.num_train_epochs): expected more than 0"),
    ("sft", "num_train_epochs: .nan", "expected a finite number; got nan."),
    ("sft", "num_train_epochs: 'inf'", "expected a finite number of at most 1,000,000,000,000,000; got inf."),
]  # fmt: skip
REFUSED_OTHERS = [
    (
        "kto",
        "kto",
        "{per_device_train_batch_size: 3, gradient_accumulation_steps: 1}",
        "makes 3 answers a step, which are no whole number of pairs.",
    ),
    (
        "grpo",
        "grpo",
        "{per_device_train_batch_size: 3, gradient_accumulation_steps: 2}",
        "makes 3 x 2 = 6 answers a step, which are no whole number of prompts with 8 answers each",
    ),
    ("grpo", "grpo", "num_iterations: 2", "cannot be 2 here: answers are used once"),
    ("grpo", "grpo", "generation_batch_size: 64", "Leave it out, or set 128."),
    ("grpo", "grpo", "reward_weights: [1.0]", "is derived here; set grpo.rewards.<name>.weight instead."),
    ("grpo", "grpo", "shuffle_dataset: false", "cannot be false here: prompts come in a seeded order"),
    ("grpo", "grpo", "sync_ref_model: true", "the reference is the stage before, from the first step to the last"),
]


@pytest.mark.parametrize(
    ("pipeline", "stage", "text", "expected"), [*(("full", *case) for case in REFUSED), *REFUSED_OTHERS], ids=str
)
def test_what_contradicts_is_refused_in_one_line(pipeline: str, stage: str, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pasted(stage, text, pipeline)
    message = str(caught.value)
    assert expected in message
    assert "\n" not in message
    assert message.startswith((f"{stage}.", "expected"))
    assert "hf_secret" not in message


def test_every_mapped_option_is_one_of_trl_or_was_one() -> None:
    of_trl = {"SFTConfig": TOKENS, "DPOConfig": PAIRWISE, "GRPOConfig": REWARDED}
    for trainer, rules in of_trl.items():
        assert set(rules) - options_of(trainer).keys() <= OLDER.keys(), trainer
    assert OLDER.keys() <= {*TOKENS, *PAIRWISE, *REWARDED}
    assert [rules_of(cls) for cls in (SftSettings, DpoSettings, GrpoSettings)] == list(of_trl.values())
