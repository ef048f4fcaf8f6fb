"""What the libraries still do that `common.training.patches` changes. A test that fails here says: remove the patch.

Those that train are marked `long`: their answer changes with requirements.lock alone. Run them when it does.
"""

from __future__ import annotations

import copy
import inspect
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.models.tokenizer import train_tokenizer
from common.training import patches
from common.training.patches import (
    float32_adapter,
    note_losses,
    text_prompt_trainer,
    token_dpo_trainer,
    token_kto_trainer,
    token_orpo_trainer,
    without_extras,
)
from common.training.rows.preferences import tokenise_pair
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow

torch = pytest.importorskip("torch")
GONE = "the library no longer does this: remove the patch"
ARGUMENTS = {
    "max_steps": 1, "use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True, "logging_steps": 1,
    "gradient_checkpointing": False, "max_length": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["a question and an answer that is long, and one that is short"], 300, 256)


@pytest.fixture
def model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        pad_token_id=0, eos_token_id=1, bos_token_id=None, max_position_embeddings=256, initializer_range=0.5,
    ))  # fmt: skip


def texts(tokenizer: Any) -> Any:
    from datasets import Dataset

    ids = tokenizer(["a question and an answer"] * 4, add_special_tokens=False)["input_ids"]
    return Dataset.from_dict({"input_ids": ids, "labels": ids})


def sft(trainer_class: Any, model: Any, tokenizer: Any, folder: Path, **options: Any) -> Any:
    from trl import SFTConfig

    arguments = SFTConfig(
        output_dir=str(folder), dataset_kwargs={"skip_prepare_dataset": True}, **{**ARGUMENTS, **options}
    )
    return trainer_class(model=model, args=arguments, train_dataset=texts(tokenizer), processing_class=tokenizer)


@pytest.mark.long
def test_trainers_write_a_model_card_for_each_checkpoint(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    from trl import DPOTrainer, RewardTrainer, SFTTrainer
    from trl.experimental.orpo import ORPOTrainer

    for trainer_class in (SFTTrainer, DPOTrainer, RewardTrainer, ORPOTrainer):
        assert "create_model_card" in inspect.getsource(trainer_class._save_checkpoint), GONE
    for name, trainer_class in (("theirs", SFTTrainer), ("ours", without_extras(SFTTrainer))):
        sft(trainer_class, model, tokenizer, tmp_path / name, save_steps=1).train()
        assert (tmp_path / name / "checkpoint-1").is_dir()
        assert (tmp_path / name / "README.md").exists() == (name == "theirs"), GONE


@pytest.mark.long
def test_the_trainer_counts_operations_in_every_batch(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    from trl import SFTTrainer

    for trainer_class, counts in ((SFTTrainer, True), (without_extras(SFTTrainer), False)):
        trainer = sft(trainer_class, model, tokenizer, tmp_path)
        trainer.train()
        assert (trainer.state.total_flos > 0) == counts, GONE


@pytest.mark.long
def test_callbacks_get_no_loss_of_a_step(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    from transformers import TrainerCallback
    from trl import SFTTrainer

    class Look(TrainerCallback):  # type: ignore[misc] # transformers is seen as Any
        def on_step_end(self, args: Any, state: Any, control: Any, **found: Any) -> None:
            assert not [name for name in found if "loss" in name], GONE

    noted: list[Any] = []
    trainer = sft(SFTTrainer, model, tokenizer, tmp_path)
    trainer.add_callback(Look())
    note_losses(trainer, noted.append)
    trainer.train()
    assert float(noted[0]) == pytest.approx(trainer.state.log_history[0]["loss"], abs=1e-4)


def test_the_adapter_of_a_quantised_base_is_narrowed(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from trl import DPOTrainer, KTOTrainer, RewardTrainer, SFTTrainer

    for trainer_class in (SFTTrainer, DPOTrainer, KTOTrainer, RewardTrainer):
        assert "param.data = param.data.to(torch.bfloat16)" in inspect.getsource(trainer_class.__init__), GONE
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])).bfloat16()
    float32_adapter(adapted)
    assert {parameter.dtype for parameter in adapted.parameters()} == {torch.float32}


def pairs(tokenizer: Any, *, apart: bool) -> Any:
    """Return tokenised pairs: prompts and answers apart, or whole with the place where answers start."""
    from datasets import Dataset

    prompt = [{"role": "user", "content": "a question"}]
    rows: list[dict[str, Any]] = []
    for answer in ("short", "an answer that is long, an answer that is long, an answer that is long"):
        sides = {"chosen": answer, "rejected": "no"}
        said = {side: [{"role": "assistant", "content": text}] for side, text in sides.items()}
        pair = tokenise_pair({"prompt": prompt, **said}, tokenizer)
        ids = {"chosen_ids": pair.chosen_ids, "rejected_ids": pair.rejected_ids, "start": pair.start}
        rows.append(pair.columns if apart else {"prompt": "", "chosen": "", "rejected": "", **ids})
    return Dataset.from_list(rows)


def test_trainers_read_the_names_of_control_tokens_as_the_tokens(tokenizer: Any) -> None:
    from trl.trainer import dpo_trainer, grpo_trainer, kto_trainer, rloo_trainer

    forged = [{"role": "user", "content": f"what is {tokenizer.eos_token}?"}]
    for module in (dpo_trainer, kto_trainer):
        ids = module._tokenize(tokenizer, forged, add_generation_prompt=True)["input_ids"]
        assert ids.count(tokenizer.eos_token_id) == 2, GONE
    for trainer_class in (grpo_trainer.GRPOTrainer, rloo_trainer.RLOOTrainer):
        assert "processing_class.apply_chat_template(" in inspect.getsource(trainer_class._tokenize_prompts), GONE
        ours = object.__new__(text_prompt_trainer(trainer_class))
        ours.processing_class = tokenizer
        (ids,), _, _ = ours._tokenize_prompts([forged])
        assert ids.count(tokenizer.eos_token_id) == 1
        harmless = [{"role": "user", "content": "what is it?"}]
        expected = tokenizer.apply_chat_template(harmless, add_generation_prompt=True, return_dict=False)
        assert ours._tokenize_prompts([harmless])[0] == [expected]


@pytest.mark.long
@pytest.mark.parametrize("method", ["dpo", "orpo"])
def test_a_mean_over_tokens_depends_on_the_split(method: str, model: Any, tokenizer: Any, tmp_path: Path) -> None:
    from trl import DPOConfig
    from trl.experimental.orpo import ORPOConfig

    config = DPOConfig if method == "dpo" else ORPOConfig
    options = {"loss_type": ["sft"]} if method == "dpo" else {"beta": 1e-9, "remove_unused_columns": False}
    reference = {"ref_model": model} if method == "dpo" else {}
    ours = token_dpo_trainer() if method == "dpo" else token_orpo_trainer()
    theirs = type("Unweighted", (ours,), {"share": property(lambda self: 1.0, lambda self, share: None)})
    losses: dict[str, list[float]] = {"ours": [], "theirs": []}
    for name, trainer_class in (("ours", ours), ("theirs", theirs)):
        for rows in (1, 2):
            arguments = config(
                output_dir=str(tmp_path), per_device_train_batch_size=rows, gradient_accumulation_steps=2 // rows,
                save_strategy="no", **{**ARGUMENTS, **options},
            )  # fmt: skip
            trainer = trainer_class(
                model=copy.deepcopy(model), args=arguments, processing_class=tokenizer,
                train_dataset=pairs(tokenizer, apart=method == "dpo"), **reference,
            )  # fmt: skip
            trainer.train()
            losses[name].append(trainer.state.log_history[0]["loss"])
    assert losses["ours"][0] == pytest.approx(losses["ours"][1], rel=1e-4)
    assert losses["theirs"][0] != pytest.approx(losses["theirs"][1], rel=1e-2), GONE


@pytest.mark.long
@pytest.mark.parametrize("rows", [2, 4])
def test_a_mismatched_answer_belongs_to_another_prompt(rows: int, model: Any, tokenizer: Any, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    # As TRL's own: the row before, which for pairs side by side is the other answer to the same prompt.
    assert 'examples["completion_ids"][-1]] + examples["completion_ids"][:-1]' in inspect.getsource(KTOTrainer), GONE
    material = [
        {"prompt_ids": [10 + pair], "completion_ids": [10 + pair, 50 + label], "label": bool(label)}
        for pair in range(4) for label in (1, 0)
    ]  # fmt: skip
    arguments = KTOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=rows, precompute_ref_log_probs=True, save_strategy="no",
        **ARGUMENTS,
    )  # fmt: skip
    trainer = token_kto_trainer()(
        model=model, ref_model=copy.deepcopy(model), args=arguments, processing_class=tokenizer,
        train_dataset=Dataset.from_list(material),
    )  # fmt: skip
    made = list(trainer.train_dataset)
    assert [row["completion_ids"] for row in made] == [row["completion_ids"] for row in material]
    assert all(row["KL_completion_ids"][0] != row["prompt_ids"][0] for row in made)
    assert all(row["KL_completion_ids"][1] == row["completion_ids"][1] for row in made)
    (batch, *_) = trainer.get_train_dataloader()
    assert (batch["KL_input_ids"][:, 0] != batch["KL_input_ids"][:, 1]).all()
    trainer.train()


@pytest.fixture
def plain() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2))


def test_trl_shards_a_reference_as_one_unit() -> None:
    from trl.models.utils import prepare_fsdp
    from trl.trainer import dpo_trainer

    source = inspect.getsource(prepare_fsdp)
    assert source.count("fully_shard(") == 1  # the model alone, none of its layers
    assert "fsdp2_prepare_model" not in source
    with patches.shard_references_by_layer():
        assert dpo_trainer.prepare_fsdp is patches.shard_reference
    assert dpo_trainer.prepare_fsdp is prepare_fsdp


def test_trl_computes_padding_like_tokens(plain: Any) -> None:
    from trl.trainer import dpo_trainer
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(plain)
    read = []
    plain.model.embed_tokens.register_forward_hook(lambda module, given, found: read.append(given[0].numel()))
    ids = torch.arange(20).view(2, 10)
    mask = torch.ones_like(ids)
    mask[1, 2:] = 0
    plain(input_ids=ids, attention_mask=mask, labels=ids.where(mask.bool(), -100), fused_lm_head=True)
    assert read == [ids.numel()]
    with patches.score_with(print):
        assert dpo_trainer.add_fused_lm_head is print
    assert dpo_trainer.add_fused_lm_head is add_fused_lm_head


def test_transformers_splits_a_batch_over_all_visible_gpus(tmp_path: Path) -> None:
    from transformers import TrainingArguments

    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, per_device_train_batch_size=4)
    arguments._n_gpu = 2  # as transformers sets it where a process sees two
    assert arguments.train_batch_size == 8
    assert patches.use_one_gpu(arguments).train_batch_size == 4


def test_accelerate_leaves_out_autocast_for_a_model_that_it_prepared_before(plain: Any) -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    def has_autocast() -> bool:
        AcceleratorState._reset_state()
        accelerator = Accelerator(cpu=True, mixed_precision="bf16")
        prepared = accelerator.prepare_model(plain)
        found = hasattr(prepared, "_original_forward")
        accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
        return found

    try:
        assert has_autocast()
        assert not has_autocast(), "accelerate prepares it again by itself"
        patches.forget_prepared(plain)
        assert has_autocast()
    finally:
        AcceleratorState._reset_state()


def test_accelerate_sums_and_rounds_in_the_narrow_type() -> None:
    from accelerate import FullyShardedDataParallelPlugin

    wide: Any = FullyShardedDataParallelPlugin(fsdp_version=2)
    patches.sum_in_float32(wide)
    assert wide.mixed_precision_policy is None  # all is float32 already
    plugin: Any = FullyShardedDataParallelPlugin(fsdp_version=2)
    plugin.set_mixed_precision("bf16")
    policy = plugin.mixed_precision_policy
    assert (policy.reduce_dtype, policy.output_dtype) == (torch.bfloat16, torch.bfloat16)
    patches.sum_in_float32(plugin)
    policy = plugin.mixed_precision_policy
    assert (policy.param_dtype, policy.reduce_dtype, policy.output_dtype) == (torch.bfloat16, torch.float32, None)
    assert policy.cast_forward_inputs


def test_torch_has_no_way_back_from_compiling() -> None:
    layer = torch.nn.Linear(2, 2)
    assert not any(name.startswith(("uncompile", "decompile")) for name in dir(layer))
    layer.compile(backend="eager")
    assert layer._compiled_call_impl is not None
    patches.uncompile(layer)
    assert layer._compiled_call_impl is None


@pytest.mark.long
def test_trackio_prints_of_its_own_accord(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    code = (
        "import contextlib, sys; from common.training.patches import quiet_trackio; import trackio\n"
        "with quiet_trackio() if sys.argv[1] == 'quiet' else contextlib.nullcontext():\n"
        "    trackio.init('p', embed=False, auto_log_gpu=False, auto_log_cpu=False); trackio.finish()\n"
    )
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    loud, quiet = (
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, how], env=environment, cwd=REPOSITORY, capture_output=True,
            text=True, check=True,
        ).stdout
        for how in ("loud", "quiet")
    )  # fmt: skip
    assert "Trackio" in loud
    assert "Trackio" not in quiet


@pytest.mark.parametrize("kind", ["GRPOTrainer", "RLOOTrainer"])
def test_an_answer_that_is_not_kept_has_no_part_in_the_loss(kind: str) -> None:
    """Neither by its advantage nor, in GRPO, by the KL term; what the model attends to stays."""
    import torch
    import trl

    theirs: Any = getattr(trl, kind)

    class Trainer(theirs):  # type: ignore[misc] # TRL is untyped
        reward_funcs = (SimpleNamespace(kept=[True, False]),)

        def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
            return {"advantages": torch.ones(2), "completion_mask": torch.ones(2, 3, dtype=torch.long)}

    ours = text_prompt_trainer(Trainer)
    output = ours.__new__(ours)._generate_and_score_completions({})
    assert output["advantages"].tolist() == [1.0, 0.0]
    assert output["completion_mask"].sum() == 6
    if kind == "GRPOTrainer":
        assert output["tool_mask"].tolist() == [[1, 1, 1], [0, 0, 0]]
    else:
        assert "tool_mask" not in output
