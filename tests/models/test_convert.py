"""Pickled weights are refused with the command that converts them, and the command works without running a pickle."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.config.schema import ModelSettings
from common.errors import DataError
from common.models import checkpoint, source
from common.models.convert import convert
from tests.conftest import REPOSITORY
from tests.models.test_contracts import build


class Code:
    """What a pickle may hold beside weights: a call that is made while it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    """A checkpoint whose weights are pickled, the tied ones under both names."""
    import torch

    model, tokenizer = build()
    folder = tmp_path / "pickled"
    checkpoint.save(model, tokenizer, folder, "float32")
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    torch.save({"lr": 0.1}, folder / "training_args.bin")
    (folder / "README.md").write_text("---\nlicense: gemma\n---\n", encoding="utf-8")
    return folder


def test_pickled_weights_are_refused_with_the_command_that_converts_them(pickled: Path, tmp_path: Path) -> None:
    import torch

    command = r"Convert it: python -m common\.models\.convert .*pickled <new folder>"
    with pytest.raises(DataError, match=rf"only pytorch_model\.bin, a pickle, which is never loaded\. {command}"):
        source.check_local(ModelSettings(path=str(pickled)))
    done = subprocess.run(
        [sys.executable, "-m", "common.models.convert", str(pickled), str(tmp_path / "out")],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == f"Converted. Start from it with model.path={tmp_path / 'out'}"
    settings = ModelSettings(path=str(tmp_path / "out"))
    source.check_local(settings)
    assert source.describe(settings)["licence"] == "gemma"
    model, tokenizer = checkpoint.load(tmp_path / "out", settings)
    built, known = build()
    assert tokenizer.get_vocab() == known.get_vocab()
    assert all(torch.equal(weight, built.state_dict()[name]) for name, weight in model.state_dict().items())


def test_of_a_checkpoint_in_shards_only_those_of_its_index_are_read(pickled: Path, tmp_path: Path) -> None:
    import torch

    weights = torch.load(pickled / "pytorch_model.bin", weights_only=True)
    names = sorted(weights)
    (pickled / "pytorch_model.bin").unlink()
    places = {name: f"pytorch_model-0000{1 + place % 2}-of-00002.bin" for place, name in enumerate(names)}
    for shard in set(places.values()):
        torch.save({name: weights[name] for name in names if places[name] == shard}, pickled / shard)
    # A copy of other weights, such as an original release beside the converted one.
    torch.save({names[0]: torch.zeros(3)}, pickled / "consolidated.00.pth")
    index = pickled / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": places}), encoding="utf-8")
    convert(pickled, tmp_path / "out")
    model, _ = checkpoint.load(tmp_path / "out", ModelSettings(path=str(tmp_path / "out")))
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    (pickled / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(DataError, match=r"index\.json names pytorch_model-00002-of-00002\.bin, which is not in"):
        convert(pickled, tmp_path / "other")
    index.write_text("[]", encoding="utf-8")
    with pytest.raises(DataError, match="is no index of shards"):
        convert(pickled, tmp_path / "other")


def test_code_in_a_pickle_does_not_run(pickled: Path, tmp_path: Path) -> None:
    import torch

    torch.save({"weight": Code(tmp_path / "ran")}, pickled / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"pytorch_model\.bin holds more than tensors, or is damaged"):
        convert(pickled, tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def test_folders_that_cannot_be_converted_are_named(pickled: Path, tmp_path: Path) -> None:
    import torch

    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no pickled weights"):
        convert(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(DataError, match=r"is not empty\. Give a new folder"):
        convert(pickled, pickled)
    shutil.copytree(pickled, tmp_path / "other")
    torch.save([1, 2], tmp_path / "other" / "pytorch_model.bin")
    with pytest.raises(DataError, match="is no table of tensors by name"):
        convert(tmp_path / "other", tmp_path / "out")
