"""Whole blocks of TRL's options, as people write them: the recipe is that of our own words, each option is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from common.config.trl_mappings import rules_of
from common.engine.corpora import open_corpus
from common.engine.fingerprint import recipe_of
from common.engine.plan import make_plan
from tests.config.pasting import pasted, run, told

# As people write them down, in the words of TRL's classes; numbers that a command line takes are text in YAML.
SFT = """
output_dir: ./sft-out
num_train_epochs: 3
max_length: 512
packing: true
per_device_train_batch_size: 4
gradient_accumulation_steps: 8
gradient_checkpointing: true
learning_rate: "2e-5"
lr_scheduler_type: cosine_with_min_lr
lr_scheduler_kwargs: {min_lr_rate: 0.1}
warmup_ratio: 0.03
weight_decay: "0.0"
bf16: true
seed: 42
logging_steps: 10
eval_strategy: steps
eval_steps: 100
save_strategy: steps
save_steps: 200
save_total_limit: 2
dataset_text_field: text
report_to: none
push_to_hub: false
"""

DPO = """
output_dir: zephyr-dpo
overwrite_output_dir: True
num_train_epochs: 1
beta: 0.05
loss_type: [sigmoid]
max_length: 512
max_prompt_length: 256
per_device_train_batch_size: 2
per_device_eval_batch_size: 4
gradient_accumulation_steps: 8
learning_rate: 5.0e-7
lr_scheduler_type: linear
warmup_steps: 100
optim: adamw_torch
bf16: true
do_eval: true
eval_strategy: "no"
hub_model_id: null
remove_unused_columns: false
report_to: []
"""

GRPO = """
output_dir: grpo-out
num_generations: 8
max_prompt_length: 128
max_completion_length: 64
per_device_train_batch_size: 8
gradient_accumulation_steps: 4
num_train_epochs: 1
max_steps: -1
learning_rate: "1e-6"
beta: 0.04
temperature: 0.9
lr_scheduler_type: constant
bf16: true
logging_steps: 1
log_completions: false
save_steps: 50
use_vllm: false
remove_unused_columns: False
seed: "42"
"""

SAME = {
    "sft": (
        SFT,
        "sft",
        {
            "sft.epochs": "3", "sft.sequence_length": "512", "sft.batch_tokens": "16384", "seed": "42",
            "sft.schedule": "{kind: cosine, floor: 0.1, warmup: 0.03}", "sft.precision": "bfloat16",
            "sft.train": "{learning_rate: 2.0e-5, gradient_checkpointing: true, weight_decay: 0}",
        },
    ),
    "full": (
        DPO,
        "dpo",
        {
            "dpo.epochs": "1", "dpo.sequence_length": "512", "dpo.batch_pairs": "16", "dpo.precision": "bfloat16",
            "dpo.schedule": "{kind: linear, floor: 0, warmup: 100}",
            "dpo.train": "{learning_rate: 5.0e-7, beta: 0.05, loss_type: [sigmoid], optim: adamw_torch}",
        },
    ),
    "grpo": (
        GRPO,
        "grpo",
        {
            "grpo.epochs": "1", "grpo.prompts_per_step": "4", "grpo.samples": "8", "grpo.prompt_tokens": "128",
            "grpo.answer_tokens": "64", "grpo.precision": "bfloat16", "seed": "42",
            "grpo.schedule": "{kind: constant, warmup: 0}",
            "grpo.train": "{learning_rate: 1.0e-6, beta: 0.04, temperature: 0.9, log_completions: false, "
            "use_vllm: false}",
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("pipeline", SAME)
def test_a_pasted_block_and_our_own_words_have_one_fingerprint(pipeline: str) -> None:
    text, stage, ours = SAME[pipeline]
    name = "full" if pipeline == "sft" else pipeline
    words = {} if stage != "dpo" else {"dpo.train.loss_weights": "[1.0]"}
    recipes = []
    for found in (pasted(stage, text, name, **words), run(**{"pipeline": name, **ours, **words})):
        node = next(node for node in found.nodes if node.name == stage)
        recipes.append(recipe_of(node, found, open_corpus(found), {}))
    assert recipes[0] == recipes[1]


@pytest.mark.parametrize(
    ("stage", "text", "pipeline"), [("sft", SFT, "full"), ("dpo", DPO, "full"), ("grpo", GRPO, "grpo")]
)
def test_a_whole_block_goes_through_plan_and_is_shown(stage: str, text: str, pipeline: str, tmp_path: Path) -> None:
    words = {"dpo.train.loss_weights": "[1.0]"} if stage == "dpo" else {}
    found = pasted(stage, text, pipeline, out=str(tmp_path), **words)
    assert make_plan(found).to_do
    given = yaml.safe_load(text)
    stages: dict[str, Any] = dict(found.config.stages)
    left = stages[stage].train
    assert not set(rules_of(type(found.config.stages[stage]))) & left.keys()
    shown = told(found)
    quiet: tuple[Any, ...] = ("no", "none", None, False, [], -1)
    for name in given.keys() - left.keys() - {"bf16"}:
        assert name in shown or given[name] in quiet, name
