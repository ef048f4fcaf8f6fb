"""Each contract fires when its promise is broken."""

from __future__ import annotations

import copy
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from common.config.schema import ModelSettings
from common.errors import ContractError, DataError
from common.models import checkpoint, contracts
from common.models.clean_load import CleanProcess
from common.models.tokenizer import train_tokenizer

PROBE = [5, 6, 7, 8, 9, 10]


def build(vocabulary: int | None = None) -> tuple[Any, Any]:
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    tokenizer = train_tokenizer(["a small text about nothing"], 300, 64)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary or len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True, max_position_embeddings=64,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    return model, tokenizer


@pytest.fixture(scope="module")
def clean() -> Any:
    with CleanProcess() as process:
        yield process


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Any, Any]:
    model, tokenizer = build()
    checkpoint.save(model, tokenizer, tmp_path / "model", "float32")
    return tmp_path / "model", model, tokenizer


def test_tokenizer_and_embedding_agree() -> None:
    model, tokenizer = build()
    contracts.check_vocabulary(model, tokenizer)
    small, _ = build(vocabulary=200)
    with pytest.raises(ContractError, match=r"does not match the model: token id .* has no embedding row"):
        contracts.check_vocabulary(small, tokenizer)


def test_the_saved_model_stops_where_a_turn_ends() -> None:
    model, tokenizer = build()
    contracts.check_stop_tokens(model, tokenizer)
    model.generation_config.eos_token_id = [7, 8]
    with pytest.raises(ContractError, match="would never stop"):
        contracts.check_stop_tokens(model, tokenizer)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    tokenizer.pad_token = tokenizer.eos_token
    with pytest.raises(ContractError, match="padding would hide the stop"):
        contracts.check_stop_tokens(model, tokenizer)


def test_the_stop_token_is_learned_in_every_conversation() -> None:
    _, tokenizer = build()
    contracts.check_stop_is_learned([[9, tokenizer.eos_token_id]], tokenizer)
    with pytest.raises(ContractError, match="In 1 of 2 conversations no stop token"):
        contracts.check_stop_is_learned([[9, tokenizer.eos_token_id], [9, -100]], tokenizer)


def test_the_chat_template_stays_the_same() -> None:
    _, tokenizer = build()
    _, other = build()
    contracts.check_template(tokenizer, other)
    other.chat_template += " "
    with pytest.raises(ContractError, match="chat template changed between the stages"):
        contracts.check_template(tokenizer, other)


def test_the_tokenizer_stays_the_same(tmp_path: Path) -> None:
    _, tokenizer = build()
    tokenizer.save_pretrained(tmp_path / "a")
    tokenizer.save_pretrained(tmp_path / "b")
    contracts.check_tokenizer(tmp_path / "a", tmp_path / "b")
    tokenizer.add_tokens(["<|new|>"])
    tokenizer.save_pretrained(tmp_path / "b")
    with pytest.raises(ContractError, match="tokenizer changed between the stages"):
        contracts.check_tokenizer(tmp_path / "b", tmp_path / "a")


def test_a_dead_checking_process_is_an_error_and_not_a_silent_end(saved: Any, tmp_path: Path) -> None:
    folder, model, _ = saved
    with CleanProcess() as process:
        process.start()
        assert process._process is not None
        process._process.kill()
        process._process.wait()
        with pytest.raises(ContractError, match="the checking process died with exit code -9"):
            contracts.check_saved(folder, PROBE, contracts.probe_logits(model, PROBE), process, tmp_path)


def test_tied_weights_stay_tied() -> None:
    import torch

    model, _ = build()
    contracts.check_tied(model)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    with pytest.raises(ContractError, match="training has separated them"):
        contracts.check_tied(model)


def test_a_sound_checkpoint_passes_in_a_clean_process(saved: Any, clean: CleanProcess, tmp_path: Path) -> None:
    folder, model, _ = saved
    contracts.check_saved(folder, PROBE, contracts.probe_logits(model, PROBE), clean, tmp_path)


def test_other_logits_after_saving_are_caught(saved: Any, clean: CleanProcess, tmp_path: Path) -> None:
    folder, model, _ = saved
    with pytest.raises(ContractError, match="computes other logits than the trained model"):
        contracts.check_saved(folder, PROBE, contracts.probe_logits(model, PROBE) + 0.1, clean, tmp_path)


def test_tensor_names_that_mean_nothing_are_caught(saved: Any, clean: CleanProcess, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder, model, _ = saved
    tensors = load_file(folder / "model.safetensors")
    renamed = {name.replace("q_proj", "query"): tensor for name, tensor in tensors.items()}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ContractError, match=r"are missing from the saved checkpoint, such as model\.layers\.0\.self_attn\.q_proj"
    ):
        contracts.check_saved(folder, PROBE, contracts.probe_logits(model, PROBE), clean, tmp_path)


def test_a_checkpoint_that_does_not_load_is_caught(saved: Any, clean: CleanProcess, tmp_path: Path) -> None:
    folder, model, _ = saved
    (folder / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ContractError, match="does not load in a clean process"):
        contracts.check_saved(folder, PROBE, contracts.probe_logits(model, PROBE), clean, tmp_path)


def test_a_merged_adapter_computes_the_same(tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    from common.store.artifacts import Artifact
    from common.training.adapters import merge

    model, _ = build()
    parent = copy.deepcopy(model)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    before = contracts.probe_logits(adapted, PROBE)
    base = Artifact(tmp_path, {"stage": "sft", "fingerprint": "0" * 16, "digest": "1" * 16})
    merged, measured = merge(adapted, parent, PROBE, tmp_path / "adapter", base)
    assert measured["adapter_merge_difference"] < 1e-5
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    assert torch.allclose(contracts.probe_logits(merged, PROBE), before, atol=1e-5)
    with pytest.raises(ContractError, match="Merging the adapter changed the logits"):
        contracts.check_adapter_merge(before, before + 1.0)


def test_logits_that_are_no_numbers_are_never_equal(tmp_path: Path) -> None:
    import torch

    sound, broken = torch.ones(2, 3), torch.full((2, 3), math.nan)
    contracts.check_adapter_merge(sound, sound)
    with pytest.raises(ContractError, match="Merging the adapter changed the logits by nan"):
        contracts.check_adapter_merge(sound, broken)
    nobody: Any = None
    with pytest.raises(ContractError, match=r"^The model of this stage: a logit holds NaN in 6 of 6 places"):
        contracts.check_saved(tmp_path, [1, 2], broken, nobody, tmp_path)


def test_the_reference_is_the_stage_before() -> None:
    contracts.check_reference([-3.0, -20.0], [-3.01, -20.1])
    contracts.check_reference([-3.0, -20.0, -0.3], [-3.01, -20.1, -0.4])  # one alone is off by a tenth
    with pytest.raises(ContractError, match="is not the stage before it"):
        contracts.check_reference([-3.0], [-5.0])
    for recorded, recomputed in (([-3.0, math.nan], [-3.0, -20.0]), ([-3.0, -20.0], [-math.inf, -20.0])):
        with pytest.raises(ContractError, match=r"a log-probability is (nan|-inf); expected finite numbers"):
            contracts.check_reference(recorded, recomputed)


def test_a_checkpoint_cut_short_is_named_with_its_bytes(saved: Any) -> None:
    folder, _, _ = saved
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"model\.safetensors is cut short: .* bytes, its header says"):
        checkpoint.load(folder, ModelSettings(path=str(folder)))


def test_pickled_weights_are_refused(saved: Any) -> None:
    folder, _, _ = saved
    shutil.move(folder / "model.safetensors", folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="a pickle, which is never loaded"):
        checkpoint.load(folder, ModelSettings(path=str(folder)))


def test_a_missing_shard_is_named(saved: Any) -> None:
    folder, _, _ = saved
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(DataError, match="lacks model-00001-of-00002"):
        checkpoint.load(folder, ModelSettings(path=str(folder)))


SIZES = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
BART = {"vocab_size": 97, "d_model": 32, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32}


def taken(name: str, **sizes: Any) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **sizes)).eval()


def test_models_that_do_not_read_from_left_to_right_are_refused() -> None:
    contracts.check_decoder(build()[0])
    with pytest.raises(ContractError, match=r"is of a kind with an encoder, as model_type bart says"):
        contracts.check_decoder(taken("bart", **BART))
    both_ways = taken("bert", **SIZES, initializer_range=0.5)
    with pytest.raises(ContractError, match=r"reads in both directions \(is_decoder is false\)"):
        contracts.check_decoder(both_ways)
    with pytest.raises(ContractError, match=r"reads what stands behind a token too \(model_type bert\)"):
        contracts.check_reads(both_ways, PROBE)
    contracts.check_reads(taken("bert", **SIZES, initializer_range=0.5, is_decoder=True), PROBE)
    contracts.check_reads(build()[0], PROBE)
    contracts.check_decoder(taken("gpt_neox", **SIZES))  # whose configuration says is_decoder=false
    contracts.check_decoder(taken("gpt2", vocab_size=97, n_embd=32, n_layer=1, n_head=2, is_decoder=False))


def test_what_a_checkpoint_says_of_generation_is_not_tried() -> None:
    model = taken("llama", **SIZES, num_key_value_heads=4, max_position_embeddings=6, pad_token_id=0)
    model.generation_config.penalty_alpha, model.generation_config.stop_strings = 0.6, ["."]
    contracts.check_reads(model, list(range(5, 25)))


def test_a_model_that_transformers_cannot_run_is_refused() -> None:
    broken = taken("granitemoe", **SIZES, num_local_experts=1, num_experts_per_tok=2)
    with pytest.raises(ContractError, match=r"was loaded, but transformers cannot run it: .+config\.json"):
        contracts.check_reads(broken, PROBE)
