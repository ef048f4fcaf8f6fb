"""Settings that cannot work together are refused by plan; a checkpoint is compared with what its profile says of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from common.cli.main import main
from common.config.folders import names_in
from common.config.resolve import resolve
from common.config.schema import ModelFacts
from common.console import Console
from common.engine.plan import make_plan
from common.engine.preflight import settings
from common.engine.preflight.inputs import check_arguments
from common.engine.preflight.settings import check_settings
from common.engine.run import execute, run_stage
from common.errors import ConfigError, ContractError, DataError
from common.models import checkpoint
from common.models.tokenizer import CHATML, TURN_END, common_words, give_chatml, train_tokenizer
from common.stages.preference import require_pairs
from common.store.artifacts import Artifact
from tests.conftest import QUICK, REPOSITORY

END_OF_TEXT = "<|endoftext|>"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            {"run.processes": "2", "run.parallelism": "fsdp2", "dpo.peft": "qlora"},
            r"dpo\.peft=qlora with run\.parallelism=fsdp2: quantised weights are not sharded here",
        ),
        (
            {"run.processes": "2", "run.parallelism": "fsdp2", "cpt.train.optim": "adamw_bnb_8bit"},
            r"cpt\.train\.optim=adamw_bnb_8bit with run\.parallelism=fsdp2: bitsandbytes has no optimizer for shards",
        ),
        (
            {"sft.train.fp16": "true"},
            r"sft-only\.precision=float16: its scaled losses need a CUDA device, and this stage trains on cpu\. Use",
        ),
        (
            {"run.hardware": "h100-sxm", "precision": "float32", "run.attention": "varlen"},
            r"run\.attention=varlen: its kernels compute in 16 bits, and base\.precision is float32\. Use",
        ),
        (
            {"run.processes": "2", "run.parallelism": "fsdp2", "pipeline": "grpo"},
            r"grpo cannot be sharded \(run\.parallelism=fsdp2\)",
        ),
        (
            {"run.processes": "2", "run.parallelism": "zero3"},
            r"run\.parallelism=zero3 needs the package deepspeed, which is not installed here.* use .*=ddp on a CPU",
        ),
        (
            {"run.processes": "2", "run.parallelism": "zero3", "run.hardware": "h100-sxm"},
            r"zero3 needs the package deepspeed, which is not .*use run\.parallelism=fsdp2, which shards",
        ),
        (
            {"run.parallelism": "fsdp2", "dpo.peft": "qlora"},
            r"run\.parallelism=fsdp2 shards a model, but run\.processes is 1. Set run\.processes",
        ),
        (
            {"run.processes": "3", "run.machines": "2"},
            r"run\.processes=3 is the number over all machines, and does not .*=2. Set run\.processes=2 or 4\.",
        ),
        (
            {"run.machines": "2"},
            r"run\.processes=1 .*does not divide by run\.machines=2\. Set run.processes=2\.",
        ),
        (
            {"run.processes": "5", "cpt.batch_tokens": "512"},
            r"base\.batch_tokens=1024 makes 8 rows per step, which 5 processes cannot share alike\. Set "
            r"base\.batch_tokens=640 or 1280, or run\.processes=1 or 2, which suits every stage\.",
        ),
        (
            {"run.processes": "8", "cpt.batch_tokens": "4096", "dpo.batch_pairs": "12"},
            r"dpo\.batch_pairs=12 makes 12 pairs per step, which 8 processes .*dpo\.batch_pairs=8 or 16, or "
            r"run\.processes=1 or 2 or 4",
        ),
        (
            {"run.processes": "8", "run.machines": "2", "cpt.batch_tokens": "4096", "dpo.batch_pairs": "12"},
            r"or run\.processes=2 or 4, which",
        ),
        (
            {"run.processes": "2", "pipeline": "grpo", "grpo.prompts_per_step": "3", "grpo.samples": "3"},
            r"grpo\.prompts_per_step=3 makes 3 prompts per step, which 2 .*grpo\.prompts_per_step=2 or 4, or "
            r"run\.processes=1, which",
        ),
        (
            {"run.processes": "4", "pipeline": "grpo", "grpo.prompts_per_step": "2", "cpt.batch_tokens": "1024"},
            r"grpo\.prompts_per_step=2 makes 2 prompts per step, which 4 .* Set grpo\.prompts_per_step=4, or "
            r"run\.processes=1 or 2, which",
        ),
        (
            {"run.processes": "3", "run.parallelism": "fsdp2", "run.hardware": "h100-sxm"},
            r"or run\.processes=2, which suits every stage",
        ),
        ({"run.attention": "spda"}, r"run\.attention=spda: there is no such attention\..*sdpa"),
        ({"run.attention": "varlen"}, r"run\.attention=varlen: its kernels need CUDA, and this stage trains on cpu"),
        ({"run.attention": "flex_attention"}, r"run\.attention=flex_attention: its kernels need CUDA"),
        ({"run.attention": "flash_attention_2"}, r"run\.attention=flash_attention_2: its kernels need CUDA"),
        (
            {"sft.train.use_liger_kernel": "true"},
            r"sft-only\.train\.use_liger_kernel=true: Liger's kernels need a CUDA device, and this stage trains on cpu",
        ),
        (
            {"dpo.train.optim": "paged_adamw_32bit"},
            r"dpo\.train\.optim=paged_adamw_32bit: paged optimizers need a CUDA",
        ),
        (
            {"cpt.sequence_length": "2048", "cpt.batch_tokens": "2048"},
            r"cpt\.sequence_length=2048 \(command line\) is longer .* set cpt\.sequence_length=1024 or less, or let",
        ),
        (
            {"dpo.sequence_length": "1025"},
            r"dpo\.sequence_length=1025 \(command line\) is longer than the model's context of 1024",
        ),
        (
            {"pipeline": "grpo", "grpo.answer_tokens": "800"},
            r"grpo\.prompt_tokens=256 and answer_tokens=800 make rows longer than",
        ),
        (
            {"profile": "qwen3-0.6b", "dpo.sequence_length": "32769"},
            r"dpo\.sequence_length=32769 \(command line\) is longer than the model's context of 32768",
        ),
    ],
)
def test_what_cannot_work_together_is_refused(words: dict[str, str], expected: str) -> None:
    found = resolve({"domain": "medical", **words}, REPOSITORY)
    with pytest.raises(ConfigError, match=expected):
        check_settings(found)
    with pytest.raises(ConfigError, match=expected):
        make_plan(found)


@pytest.mark.parametrize(
    "words",
    [
        {"run.processes": "2", "dpo.peft": "qlora"},  # ddp
        {"run.processes": "2", "cpt.train.optim": "adamw_bnb_8bit"},
        {"run.attention": "varlen", "sft.train.use_liger_kernel": "true", "run.hardware": "h100-sxm"},  # planned for
        {"run.processes": "2", "run.parallelism": "fsdp2", "dpo.peft": "lora"},
        {"run.processes": "4", "run.machines": "2", "cpt.batch_tokens": "1024"},
    ],
)
def test_what_can_work_is_not(words: dict[str, str]) -> None:
    check_settings(resolve({"domain": "medical", **words}, REPOSITORY))


def test_a_longer_context_is_advised_only_where_there_can_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    gpt2 = {"model_type": "gpt2", "max_position_embeddings": 64}
    monkeypatch.setattr(settings, "config_after", lambda *_: gpt2)
    monkeypatch.setattr(settings, "context_after", lambda *_: 64)
    found = resolve({"domain": "medical"}, REPOSITORY)
    with pytest.raises(ConfigError, match=r"longer than the model's context of 64 .* set base\.seq\w+=64 or less\.$"):
        check_settings(found)


def test_a_run_on_a_cpu_has_no_fsdp(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"out={tmp_path}", "run.processes=2", "run.parallelism=fsdp2"]
    for command in ("plan", "run"):
        assert main([command, "domain=medical", *words, "run.device=cpu"]) == 1
        said = capsys.readouterr().err
        assert "accelerate has no FSDP on a CPU, and this run is planned for one. Use run.parallelism=ddp" in said
    assert main(["plan", "domain=all", *words, "run.device=cpu"]) == 1
    assert "6 domains cannot run" in capsys.readouterr().err
    assert main(["plan", "domain=medical", *words, "run.hardware=h100-sxm"]) == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"grpo.train.beta": "-1"}, r"grpo\.train\.beta"),
        ({"cpt.train.tf32": "true"}, r"cpt\.train: TRL refuses these options: .*tf32"),
    ],
)
def test_values_that_only_trl_can_judge_are_judged_before_the_first_stage(
    tmp_path: Path, words: dict[str, str], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        execute(
            resolve({"domain": "medical", "pipeline": "grpo", "out": str(tmp_path), **words}, REPOSITORY),
            Console("quiet"),
        )
    assert not list((tmp_path / "artifacts").glob("base-*"))


def test_values_that_only_a_trainer_can_judge_end_in_one_line(copy: Path) -> None:
    found = resolve({**QUICK, "domain": "medical", "out": str(copy), "sft.train.loss_type": "nope"}, REPOSITORY)
    with pytest.raises(ConfigError, match=r"sft\.train: TRL refuses these options: Invalid `loss_type` nope"):
        run_stage(found, "sft", Console("quiet"))


@pytest.mark.parametrize("pipeline", names_in(REPOSITORY / "pipelines"))
def test_every_pipeline_s_own_values_are_taken(pipeline: str) -> None:
    found = resolve({"domain": "math", "pipeline": pipeline}, REPOSITORY)
    check_arguments(found.config, found.nodes)


def test_fewer_pairs_than_processes_are_refused() -> None:
    require_pairs(8, 8, "x")
    with pytest.raises(DataError, match=r"Stage dpo: y has 7 usable pairs for 8 processes\. Add pairs or start fewer"):
        require_pairs(7, 8, "Stage dpo: y")
    with pytest.raises(DataError, match=r"Stage dpo: y has no usable pair. Check where it comes from"):
        require_pairs(0, 1, "Stage dpo: y")


FACTS = {
    "model_type": "qwen3", "parameters": 140_224, "vocab_size": 1033, "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "tie_word_embeddings": True, "max_position_embeddings": 2048, "licence": "apache-2.0", "chat_template": "own",
}  # fmt: skip


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3 base in small, with random weights: ChatML as its template, another stop token, padding alike."""
    import torch
    import trl
    from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    folder = tmp_path_factory.mktemp("base")
    tokenizer = train_tokenizer(common_words(), 1024, 1024)
    tokenizer.add_special_tokens({"additional_special_tokens": [END_OF_TEXT, "<|im_start|>", TURN_END]})
    tokenizer.eos_token = tokenizer.pad_token = END_OF_TEXT
    template = Path(str(trl.__file__)).parent / "chat_templates" / "qwen3.jinja"
    tokenizer.chat_template = template.read_text(encoding="utf-8")
    shape = {key: value for key, value in FACTS.items() if key not in ("model_type", "licence", "chat_template")}
    del shape["parameters"]
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(**shape, eos_token_id=tokenizer.eos_token_id))
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def words_for(folder: Path, out: Path, **facts: Any) -> dict[str, str]:
    """Return the words of a run of the 0.6B profile whose checkpoint is another, small one."""
    small = {
        "data": "embedded", "needs.device": "cpu", "needs.host_memory_gb": "0", "needs.disk_gb": "0",
        "run.workers": "0", "sft.sequence_length": "256", "sft.batch_tokens": "1024", "sft.tokens": "4096",
        "pipeline": "sft-only",
    }  # fmt: skip
    own = {key: value for key, value in QUICK.items() if key.split(".")[0] not in ("base", "cpt", "dpo", "sft")}
    return {
        "domain": "medical", "profile": "qwen3-0.6b", "out": str(out), **own, **small, "model.path": str(folder),
        "model.chat_template": "chatml", "model.facts": json.dumps({**FACTS, **facts}), "model.dtype": "bfloat16",
    }  # fmt: skip


def make(words: dict[str, str], stage: str) -> Artifact:
    return run_stage(resolve(words, REPOSITORY), stage, Console("quiet"))


def test_a_base_in_bfloat16_gets_chatml_and_a_stage_learns_to_stop_by_it(base_folder: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    words = words_for(base_folder, tmp_path)
    base = make(words, "base")
    model = resolve(words, REPOSITORY).config.model
    tokenizer = checkpoint.load_tokenizer(base.path, model)
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.chat_template) == (TURN_END, END_OF_TEXT, CHATML)
    settings = json.loads((base.path / "generation_config.json").read_text(encoding="utf-8"))
    assert settings["eos_token_id"] == tokenizer.convert_tokens_to_ids(TURN_END)
    assert base.manifest["sources"][0]["licence"] == "apache-2.0"
    sft = make({**words, "sft.peft": "qlora", "sft.train.learning_rate": "1e-2"}, "sft")
    before, after = (load_file(str(made.path / "model.safetensors")) for made in (base, sft))
    assert {weight.dtype for weight in after.values()} == {torch.bfloat16}
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_checkpoint_of_the_hub_is_its_commit_and_facts_that_change_later_are_compared(
    base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "a" * 40
    snapshots = tmp_path / "cache" / "models--owner--name" / "snapshots"
    shutil.copytree(base_folder, snapshots / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    words = {**words_for(base_folder, tmp_path), "model.path": "owner/name", "model.revision": commit}
    base = make(words, "base")
    recipe = base.manifest["recipe"]["model"]
    assert (recipe["hub"], recipe["revision"], recipe["chat_template"]) == ("owner/name", commit, "chatml")
    assert "facts" not in recipe
    shutil.rmtree(snapshots)  # neither the Hub nor the download is asked again
    assert make_plan(resolve(words, REPOSITORY)).steps[0].state == "cached"
    fewer = {**words, "model.facts": json.dumps({**FACTS, "vocab_size": int(str(FACTS["vocab_size"])) - 1})}
    assert make_plan(resolve(fewer, REPOSITORY)).steps[0].state == "cached"  # the stage may have added a row
    wrong = {**words, "model.facts": json.dumps({**FACTS, "head_dim": 32})}
    with pytest.raises(ConfigError, match=r"base-\w+/config\.json: head_dim is 16, but model\.facts\.head_dim says 32"):
        make_plan(resolve(wrong, REPOSITORY))


@pytest.mark.parametrize(
    ("key", "said", "found"),
    [("vocab_size", 151936, "1033"), ("tie_word_embeddings", False, "True"), ("model_type", "llama", "qwen3"),
     ("max_position_embeddings", 4096, "2048"), ("num_key_value_heads", 4, "2")],
)  # fmt: skip
def test_a_wrong_fact_is_told_with_its_file(key: str, said: Any, found: str, base_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        make_plan(resolve(words_for(base_folder, tmp_path, **{key: said}), REPOSITORY))
    assert (
        f"{base_folder}/config.json: {key} is {found}, but model.facts.{key} says {said}. Correct the profile"
        in str(caught.value)
    )


def test_what_config_json_does_not_tell_is_compared_once_the_weights_are_there(
    base_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"parameters is 140,224, but model\.facts\.parameters says 140,000"):
        make(words_for(base_folder, tmp_path, parameters=140_000), "base")
    words = words_for(base_folder, tmp_path, chat_template="none") | {"model.chat_template": "own"}
    with pytest.raises(ConfigError, match=r"chat_template is own, but model\.facts\.chat_template says none"):
        make(words, "base")
    assert not list((tmp_path / "artifacts").glob("base-*"))


def test_chatml_needs_its_tokens() -> None:
    tokenizer = train_tokenizer(["a b c"], 300, 64)
    with pytest.raises(ContractError, match=r"model\.chat_template=chatml needs the tokens <\|im_start\|> and"):
        give_chatml(tokenizer, None)


def test_heads_that_config_json_leaves_out_follow_from_the_others(tmp_path: Path) -> None:
    from common.models.facts import check_facts

    model = resolve({"domain": "medical", "profile": "smollm2-135m"}, REPOSITORY).config.model
    assert isinstance(model.facts, ModelFacts)
    kept = ("model_type", "vocab_size", "hidden_size", "num_attention_heads", "num_key_value_heads")
    told = model.facts.model_dump(include=set(kept))
    (tmp_path / "config.json").write_text(json.dumps(told), encoding="utf-8")
    check_facts(tmp_path, model)
    (tmp_path / "config.json").write_text(json.dumps({**told, "hidden_size": 1152}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"hidden_size is 1152, but model\.facts\.hidden_size says 576"):
        check_facts(tmp_path, model)
    (tmp_path / "config.json").write_text(json.dumps({**told, "num_attention_heads": 18}), encoding="utf-8")
    with pytest.raises(ConfigError, match="num_attention_heads is 18"):
        check_facts(tmp_path, model)
    wide = model.model_copy(update={"facts": model.facts.model_copy(update={"head_dim": 128})})
    (tmp_path / "config.json").write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"head_dim is 64, but model\.facts\.head_dim says 128"):
        check_facts(tmp_path, wide)
