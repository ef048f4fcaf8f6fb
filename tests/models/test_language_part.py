"""The language model within a checkpoint that reads images or sound too."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForMultimodalLM, AutoTokenizer

from common.cli.plan_costs import totals
from common.config.resolve import resolve
from common.config.schema import ModelSettings
from common.engine.plan import make_plan
from common.errors import ContractError, DataError, RecipeError
from common.models import checkpoint
from common.models.contracts import check_decoder
from common.models.language_part import note_part, part_of, text_tensors
from common.models.local import config_of, require_built
from common.models.source import check_place
from tests.bench.architectures import PLAIN, small
from tests.conftest import REPOSITORY
from tests.end_to_end.test_families import make_tokenizer


def publish(name: str, folder: Path) -> Path:
    """Save a whole model of a kind as it is published, with a tokenizer of its language model's kind."""
    tokenizer = make_tokenizer(PLAIN)
    model = small(name, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    AutoTokenizer.from_pretrained(folder, config=part_of(model.config)).save_pretrained(folder)
    return folder


def settings(folder: Path) -> ModelSettings:
    return ModelSettings(path=str(folder))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("gemma3", "gemma3_text"),
        ("mistral3", "mistral"),
        ("llava", "llama"),
        ("smolvlm", "llama"),
        ("qwen2_vl", "qwen2"),
        ("qwen2_5_vl", "qwen2"),
        ("qwen3_vl", "qwen3"),
        ("llama4", "llama4_text"),
        ("voxtral", "llama"),
        ("qwen3_5", "qwen3_5_text"),
        ("gemma4", "gemma4_text"),
    ],
)
def test_it_reads_text_as_the_whole_does(name: str, kind: str, tmp_path: Path) -> None:
    """Logits are equal, no weight of it is missing, and it is saved under names of its own."""
    folder = publish(name, tmp_path / "whole")
    part = checkpoint.load_model(folder, settings(folder)).eval()
    whole: Any = AutoModelForMultimodalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.arange(5, 45)[None]
    with torch.no_grad():
        torch.testing.assert_close(part(input_ids=ids).logits, whole(input_ids=ids).logits)
    assert part.config.model_type == kind
    assert part.num_parameters() < whole.num_parameters()
    assert (note := note_part(folder, part))
    assert f"of {name}, which reads more than text" in note[0]

    part.save_pretrained(tmp_path / "saved")
    again = checkpoint.load_model(tmp_path / "saved", settings(folder))
    assert all(map(torch.equal, part.state_dict().values(), again.state_dict().values()))
    with safe_open(tmp_path / "saved" / "model.safetensors", "pt") as stored:
        assert all(key.startswith(("model.", "lm_head.")) for key in stored.keys())  # noqa: SIM118, which has no others
    assert note_part(tmp_path / "saved", again) == []
    skeleton = checkpoint.load_skeleton(folder, settings(folder))
    assert skeleton.state_dict().keys() == part.state_dict().keys()


def test_a_plan_knows_its_sizes_and_counts_its_weights_alone(tmp_path: Path) -> None:
    """Also those that its config.json leaves out, as Gemma 3's do."""
    folder = publish("gemma3", tmp_path)
    known, part = config_of(folder), checkpoint.load_skeleton(folder, settings(folder))
    assert (known["hidden_size"], known["model_type"]) == (part.config.hidden_size, "gemma3_text")
    assert known["parameters"] == part.num_parameters()
    words = {"domain": "medical", "model.path": str(folder), "model.licence": "mit", "out": str(tmp_path / "out")}
    said = "\n".join(totals(make_plan(resolve(words, REPOSITORY))))
    assert "The checkpoint reads more than text (gemma3): its language model alone is trained." in said


def test_stops_are_what_the_whole_says() -> None:
    part = part_of(AutoConfig.for_model("llava", eos_token_id=[1, 7]))
    assert part is not None
    assert part.eos_token_id == [1, 7]
    assert part_of(AutoConfig.for_model("llama")) is None


def test_without_a_word_about_it_a_head_of_its_own_is_one(tmp_path: Path) -> None:
    """Mistral 3's whole is tied by default in transformers, its language model is not."""
    folder = publish("mistral3", tmp_path)
    stored = load_file(folder / "model.safetensors")
    head = torch.randn_like(stored["language_model.model.embed_tokens.weight"])
    save_file({**stored, "language_model.lm_head.weight": head}, folder / "model.safetensors", {"format": "pt"})
    change(folder, tie_word_embeddings=None)
    part = checkpoint.load_model(folder, settings(folder))
    assert part.config.tie_word_embeddings is False
    assert torch.equal(part.lm_head.weight, head)
    assert part.num_parameters() == config_of(folder)["parameters"]
    assert part.num_parameters() == checkpoint.load_skeleton(folder, settings(folder)).num_parameters()


def test_a_tied_head_that_is_stored_is_counted_once(tmp_path: Path) -> None:
    folder = publish("llava", tmp_path)
    stored = load_file(folder / "model.safetensors")
    (table,) = (name for name in stored if name.endswith("embed_tokens.weight"))
    change(folder, tie_word_embeddings=None)
    change(folder, tie_word_embeddings=True)
    head = {"language_model.lm_head.weight": stored[table].clone()}
    save_file({**stored, **head}, folder / "model.safetensors", {"format": "pt"})
    assert config_of(folder)["parameters"] == checkpoint.load_model(folder, settings(folder)).num_parameters()


@pytest.mark.parametrize("part", [{"hidden_size": 8}, {}])
def test_settings_of_a_part_that_this_kind_of_model_has_not_are_refused(part: dict[str, Any], tmp_path: Path) -> None:
    small("llama", make_tokenizer(PLAIN)).save_pretrained(tmp_path)
    change(tmp_path, text_config=part)
    for read in (config_of, lambda place: checkpoint.load_model(place, settings(place))):
        with pytest.raises(DataError, match=r"config\.json gives a llama the settings of a part \(text_config\)"):
            read(tmp_path)


@pytest.mark.parametrize("key", ["text_config", "thinker_config"])
def test_a_part_without_settings_is_a_sentence(key: str, tmp_path: Path) -> None:
    folder = publish("llava", tmp_path)
    change(folder, **{key: "x"})
    with pytest.raises(DataError, match=rf"config\.json: {key} is 'x'; expected the settings of a language model"):
        config_of(folder)
    with pytest.raises(DataError, match=key):
        checkpoint.load_model(folder, settings(folder))


def test_the_part_that_asks_about_images_is_not_taken_for_the_language_model() -> None:
    """InstructBLIP's, whose embedding has a shorter name."""
    names = ["qformer.embeddings.word_embeddings.weight", "language_model.model.decoder.embed_tokens.weight"]
    assert text_tensors(names) == names[1:]


def test_a_config_that_keeps_the_keys_of_text_beside_those_of_images(tmp_path: Path) -> None:
    """As Qwen2.5-VL's is published."""
    folder = publish("qwen2_5_vl", tmp_path)
    file = folder / "config.json"
    found = json.loads(file.read_text())
    text = {**found.pop("text_config"), "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]}}
    text.pop("rope_parameters")
    file.write_text(json.dumps({**text, **found}))
    part = checkpoint.load_model(folder, settings(folder))
    assert part.config.model_type == config_of(folder)["model_type"] == "qwen2"
    assert part.config.rope_parameters == {"rope_theta": 1_000_000.0, "rope_type": "default"}
    assert part.num_parameters() == config_of(folder)["parameters"]
    assert note_part(folder, part)


def test_tensors_of_other_parts_are_not_taken_for_its_own(tmp_path: Path) -> None:
    folder = publish("llava", tmp_path)
    stored = load_file(folder / "model.safetensors")
    table = stored["language_model.model.embed_tokens.weight"]
    more = {"mtp.embed_tokens.weight": table + 1, "mtp.lm_head.weight": table + 2}
    save_file({**stored, **more}, folder / "model.safetensors", {"format": "pt"})
    part = checkpoint.load_model(folder, settings(folder))
    assert torch.equal(part.model.embed_tokens.weight, table)
    assert torch.equal(part.lm_head.weight, stored["language_model.lm_head.weight"])


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("model.embed_tokens.weight", "0 tensors are called …embed_tokens.weight; expected one"),
        ("layers.0.mlp.up_proj.weight", "they would be random. Take a checkpoint of its language model alone."),
    ],
)
def test_a_whole_that_lacks_some_of_it_is_refused(gone: str, message: str, tmp_path: Path) -> None:
    folder = publish("llava", tmp_path)
    stored = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in stored.items() if "language_model" not in name or not name.endswith(gone)}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match=re.escape(message)):
        checkpoint.load_model(folder, settings(folder))


def test_a_whole_that_its_own_code_builds_is_refused() -> None:
    model: Any = SimpleNamespace(config=AutoConfig.for_model("gemma3"))
    with pytest.raises(ContractError, match="is a language model and more, as model_type gemma3 says"):
        check_decoder(model)


def test_trust_in_code_changes_nothing_where_there_is_none(tmp_path: Path) -> None:
    folder = publish("gemma3", tmp_path)
    trusting = ModelSettings(path=str(folder), trust_remote_code=True)
    assert checkpoint.load_model(folder, trusting).config.model_type == "gemma3_text"


def test_code_of_a_checkpoint_is_not_run_to_look_at_its_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers asks on the terminal where neither yes nor no is given."""
    folder, marker = publish("gemma3", tmp_path), tmp_path / "ran"
    change(folder, model_type="strange", auto_map={"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"})
    (folder / "code.py").write_text(f"open({str(marker)!r}, 'w')\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    config_of(folder)
    for read in (checkpoint.load_skeleton, checkpoint.load_model, checkpoint.load_tokenizer):
        with pytest.raises(RecipeError, match="cannot be loaded"):
            read(folder, settings(folder))
    assert not marker.exists()


@pytest.mark.parametrize("name", ["mllama", "qwen3_vl_moe"])
def test_a_part_that_is_no_language_model_of_its_own_is_refused(name: str, tmp_path: Path) -> None:
    """Experts of Qwen3-VL are stored otherwise than those of Qwen3."""
    publish("llava", tmp_path)
    AutoConfig.for_model(name).save_pretrained(tmp_path)
    refused = rf"config\.json: model_type {name}_text\w* is nothing that .* builds"
    with pytest.raises(DataError, match=refused):
        checkpoint.load_skeleton(tmp_path, settings(tmp_path))
    for _ in range(2):  # found, then remembered
        with pytest.raises(DataError, match=refused):
            check_place(tmp_path, settings(tmp_path))  # by which a plan refuses
    change(tmp_path, auto_map={"AutoModelForCausalLM": "code.Model"})
    require_built(tmp_path, trusted=True)  # its own code may
    with pytest.raises(DataError, match=refused):
        require_built(tmp_path, trusted=False)


@pytest.mark.parametrize("keys", [{"text_config": {"model_type": "gemma3_text", "hidden_activation": "frob"}}])
def test_a_part_that_cannot_be_built_is_a_sentence(keys: dict[str, Any], tmp_path: Path) -> None:
    folder = publish("gemma3", tmp_path)
    change(folder, **keys)
    with pytest.raises(DataError, match="cannot be loaded"):
        checkpoint.load_model(folder, settings(folder))


def change(folder: Path, **keys: Any) -> None:
    """Set keys of config.json; None takes one away, in its parts too."""
    file = folder / "config.json"
    found = json.loads(file.read_text())
    gone = {key for key, value in keys.items() if value is None}
    parts = [found, *(part for part in found.values() if isinstance(part, dict))]
    for part in parts:
        for key in gone & part.keys():
            del part[key]
    file.write_text(json.dumps({**found, **{key: value for key, value in keys.items() if value is not None}}))


def test_a_tokenizer_that_cuts_alike_once_it_is_saved_is_taken(tmp_path: Path) -> None:
    """Qwen3.5's whole has a class of its own, which the saved files name."""
    folder = publish("qwen3_5", tmp_path)
    tokenizer = checkpoint.load_tokenizer(folder, settings(folder))
    assert type(tokenizer).__name__ == "Qwen3_5Tokenizer"


def test_a_tokenizer_that_would_cut_otherwise_beside_it_is_refused(tmp_path: Path) -> None:
    """Its file has other rules than those of Qwen, which are taken for that kind of model whatever the file says."""
    AutoConfig.for_model("qwen2_vl").save_pretrained(tmp_path)
    make_tokenizer(PLAIN).save_pretrained(tmp_path)
    with pytest.raises(DataError, match="as Qwen2Tokenizer beside its language model, which cuts texts otherwise"):
        checkpoint.load_tokenizer(tmp_path, settings(tmp_path))
