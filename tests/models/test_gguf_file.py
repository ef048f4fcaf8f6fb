"""GGUF files: the header is read without weights, the weights come through transformers, a bad file is one line."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from common.config.schema import ModelFacts, ModelSettings
from common.cost.shapes import shape_of
from common.errors import ConfigError, DataError
from common.models import checkpoint, source
from common.models.facts import check_facts
from common.models.gguf_file import FAMILIES, GgufHeader, config_of_gguf, read_gguf
from common.models.planned import base_config
from tests.models.test_contracts import build

HIDDEN, INNER, HEADS, CONTEXT = 32, 64, 2, 1024
PERMUTED = ("attn_q.weight", "attn_k.weight")  # llama.cpp stores the halves of a head in turns


def write_gguf(
    path: Path, architecture: str = "llama", packed: str = "Q8_0", context: int = CONTEXT
) -> tuple[Any, Any]:
    """Write a tiny model with a tokenizer as a GGUF file, its matrices packed. Return the model and the tokenizer."""
    import gguf
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    _, tokenizer = build()
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=1,
        num_attention_heads=HEADS, num_key_value_heads=1, tie_word_embeddings=True, max_position_embeddings=context,
    ))  # fmt: skip
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_name("Tiny")
    writer.add_license("mit")
    for add, value in (
        (writer.add_context_length, context), (writer.add_embedding_length, HIDDEN), (writer.add_block_count, 1),
        (writer.add_feed_forward_length, INNER), (writer.add_head_count, HEADS), (writer.add_head_count_kv, 1),
        (writer.add_layer_norm_rms_eps, 1e-6), (writer.add_rope_freq_base, 10000.0),
        (writer.add_vocab_size, len(tokenizer)), (writer.add_rope_dimension_count, HIDDEN // HEADS),
    ):  # fmt: skip
        add(value)
    words = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    special = set(tokenizer.all_special_ids)
    tokens = sorted(words["vocab"], key=words["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if index in special else 1 for index in range(len(tokens))])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in words["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 1)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight":  # tied
            continue
        stored, array = names.get_name(name, (".weight",)), weight.numpy()
        assert stored is not None
        if stored.endswith(PERMUTED):
            heads = HEADS if "attn_q" in stored else 1
            array = array.reshape(heads, 2, -1, HIDDEN).swapaxes(1, 2).reshape(array.shape)
        kind = getattr(gguf.GGMLQuantizationType, packed if array.ndim == 2 else "F32")
        writer.add_tensor(stored, gguf.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model, tokenizer


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.Q8_0.gguf"
    write_gguf(path)
    return path


def test_a_plan_reads_the_shape_from_the_header_alone(file: Path) -> None:
    settings = ModelSettings(path=str(file))
    shape = shape_of(settings)
    assert shape is not None
    built = write_gguf(file)[0]
    assert shape.parameters == built.num_parameters()
    assert (shape.hidden, shape.heads, shape.key_heads, shape.head_size, shape.tied) == (HIDDEN, 2, 1, 16, True)
    assert base_config(settings)["max_position_embeddings"] == CONTEXT
    assert source.describe(settings) == {"id": file.name, "title": "Tiny", "licence": "mit", "origin": "local"}


def test_its_identity_is_its_bytes_and_not_its_name(file: Path) -> None:
    before = source.digest_checkpoint(ModelSettings(path=str(file)))
    renamed = file.rename(file.with_name("other.gguf"))
    assert source.digest_checkpoint(ModelSettings(path=str(renamed))) == before


def test_it_loads_as_an_ordinary_model_and_is_saved_as_safetensors(tmp_path: Path) -> None:
    import torch

    file = tmp_path / "model.gguf"
    built, tokenizer = write_gguf(file, packed="F32")
    settings = ModelSettings(path=str(file))
    model, found = checkpoint.load(source.fetch(settings), settings)
    assert found.get_vocab().items() >= tokenizer.get_vocab().items()
    assert (found.eos_token, found.pad_token) == (tokenizer.eos_token, tokenizer.pad_token)
    assert found.chat_template == tokenizer.chat_template
    ids = torch.tensor([[3, 269, 80, 280, 1]])
    assert torch.allclose(model(ids).logits, built(ids).logits, atol=1e-5)
    checkpoint.save(model, found, tmp_path / "saved", "float32")
    again, _ = checkpoint.load(tmp_path / "saved", settings)
    assert torch.equal(again(ids).logits, model(ids).logits)


def test_its_header_is_gone_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gguf

    file, reader, read = tmp_path / "model.gguf", gguf.GGUFReader, list[str]()
    names, named = gguf.get_tensor_name_map, list[int]()
    write_gguf(file)

    def noted(path: str | Path) -> Any:
        read.append(str(path))
        return reader(path)

    def map_names(architecture: int, blocks: int) -> Any:
        named.append(architecture)
        return names(architecture, blocks)

    monkeypatch.setattr(gguf, "GGUFReader", noted)
    monkeypatch.setattr(gguf, "get_tensor_name_map", map_names)
    for times in (1, 2):  # what a file holds may change between two loads
        checkpoint.load(file, ModelSettings(path=str(file)))
        assert (len(read), len(named)) == (times, times)
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == (noted, map_names)


def test_families_are_those_that_transformers_unpacks() -> None:
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    assert {model_type.removesuffix("_text") for model_type in FAMILIES.values()} <= set(GGUF_SUPPORTED_ARCHITECTURES)


def test_facts_of_a_profile_are_compared_with_the_header(file: Path) -> None:
    known = {key: value for key, value in config_of_gguf(read_gguf(file)).items() if value is not None}
    facts = ModelFacts(**{**known, "num_hidden_layers": 2}, licence="mit", chat_template="own")
    with pytest.raises(ConfigError, match=r"tiny\.Q8_0\.gguf: num_hidden_layers is 1, but model\.facts\.num_hidden"):
        check_facts(file, ModelSettings(path=str(file), facts=facts))


def test_a_file_that_is_cut_short_or_of_another_kind_is_named(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"tiny\.Q8_0\.gguf is cut short: .* bytes, its header says"):
        source.check_local(ModelSettings(path=str(file)))
    file.write_bytes(whole[:200])
    with pytest.raises(DataError, match="no whole GGUF file of version 2 or 3"):
        source.check_local(ModelSettings(path=str(file)))
    write_gguf(tmp_path / "other.gguf", architecture="mamba")
    with pytest.raises(DataError, match="of the architecture mamba, which is not unpacked"):
        source.check_local(ModelSettings(path=str(tmp_path / "other.gguf")))


def test_what_stands_beside_a_file_changes_nothing(tmp_path: Path) -> None:
    """Its bytes are its identity, so nothing else may decide how it is read."""
    file = tmp_path / "model.gguf"
    _, tokenizer = write_gguf(file)
    settings = ModelSettings(path=str(file))
    before = checkpoint.load_tokenizer(file, settings)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GemmaTokenizer"}', encoding="utf-8")
    other = json.loads(tokenizer.backend_tokenizer.to_str())
    other["model"]["merges"] = []
    (tmp_path / "tokenizer.json").write_text(json.dumps(other), encoding="utf-8")
    found = checkpoint.load_tokenizer(file, settings)
    assert (type(found), found.get_vocab()) == (type(before), before.get_vocab())
    assert found("a question").input_ids == before("a question").input_ids
    for name, loaded in (("before", before), ("found", found)):
        loaded.save_pretrained(tmp_path / name)
    saved = [(tmp_path / name / "tokenizer_config.json").read_bytes() for name in ("before", "found")]
    assert saved[0] == saved[1]  # with no name of a temporary folder


def head(*keys: bytes, tensors: int = 0) -> bytes:
    """Return the beginning of a GGUF file with some keys, each as it is stored."""
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, len(keys)) + b"".join(keys)


def key(name: str, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", kind) + value


@pytest.mark.parametrize(
    "content",
    [
        b"",
        head(key("general.alignment", 4, struct.pack("<I", 0))),
        head(key("general.alignment", 9, struct.pack("<IQI", 4, 1, 32))),
        head(key("general.name", 8, struct.pack("<Q", 2**40))),
        head(key("words", 9, struct.pack("<IQQ", 8, 2, 2**64 - 1))),
        head(key("numbers", 9, struct.pack("<IQ", 11, 2**63))),
        head(key("lists", 9, struct.pack("<IQ", 9, 1))),
        head(tensors=1) + struct.pack("<QI", 0, 2**32 - 1),
    ],
)
def test_a_header_that_says_nonsense_is_one_line(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "odd.gguf"
    file.write_bytes(content + bytes(64 if content else 0))
    with pytest.raises(DataError, match="no whole GGUF file of version 2 or 3"):
        read_gguf(file)


def test_a_header_without_shapes_is_named_before_it_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "odd.gguf"
    llama = key("general.architecture", 8, struct.pack("<Q", 5) + b"llama")
    file.write_bytes(head(llama, key("llama.attention.head_count", 4, struct.pack("<I", 2))))
    with pytest.raises(DataError, match=r"odd\.gguf: its header lacks llama\.embedding_length"):
        source.check_local(ModelSettings(path=str(file)))
    file.write_bytes(head(llama, key("split.count", 2, struct.pack("<H", 3))))
    with pytest.raises(DataError, match=r"odd\.gguf is one part of a model in several files"):
        source.check_local(ModelSettings(path=str(file)))


def test_lists_by_token_are_not_kept(tmp_path: Path) -> None:
    file = tmp_path / "long.gguf"
    scores = key("tokenizer.ggml.scores", 9, struct.pack("<IQ", 6, 5000) + bytes(4 * 5000))
    file.write_bytes(head(scores, key("llama.block_count", 4, struct.pack("<I", 7))))
    assert read_gguf(file).metadata == {"llama.block_count": 7}
    kinds = {"general.architecture": "llama", "llama.attention.head_count": [2, 4], "llama.block_count": "x"}
    assert config_of_gguf(GgufHeader(kinds, {}, 0))["num_attention_heads"] == 4
