"""What is published of a model and its card, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.errors import ContractError
from common.report.bundle import copy_files, select_files
from common.store.artifacts import Artifact

MODEL = (
    "config.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors",
    "log.jsonl",
    "run/a.safetensors",
)
CARD = ("README.md", "summary.json", "card.json", "loss.png")


def artifact(stage: str, names: tuple[str, ...], digest: str = "a" * 16, **manifest: Any) -> Artifact:
    files = {name: {"size": 1, "sha256": "0" * 64} for name in names}
    return Artifact(Path(stage), {"stage": stage, "fingerprint": "f", "digest": digest, "files": files, **manifest})


def test_weights_tokenizer_and_card_are_taken_and_logs_are_not() -> None:
    taken = select_files(artifact("merge", MODEL), artifact("card", CARD))
    assert sorted(taken) == sorted([*MODEL[:4], *CARD])
    assert taken["README.md"][0] == Path("card/README.md")
    assert taken["config.json"][0] == Path("merge/config.json")


@pytest.mark.parametrize("name", ["training_args.bin", "optimizer.pt", "state/data.pkl"])
def test_a_pickle_is_refused(name: str) -> None:
    with pytest.raises(ContractError, match=f"saved {name}, and loading a pickle runs code"):
        select_files(artifact("merge", (*MODEL, name)), artifact("card", CARD))


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "model.safetensors"])
def test_a_model_that_could_not_be_loaded_is_refused(name: str) -> None:
    model = artifact("merge", tuple(other for other in MODEL if other != name))
    with pytest.raises(ContractError, match=r"have no (config\.json|tokenizer_config\.json|\*\.safetensors), which"):
        select_files(model, artifact("card", CARD))


def test_a_card_without_text_is_refused() -> None:
    with pytest.raises(ContractError, match=r"have no README\.md, which"):
        select_files(artifact("merge", MODEL), artifact("card", CARD[1:]))


@pytest.mark.parametrize(
    "about",
    [{"metrics": {"published": "sft"}}, {"inputs": {"merge": {"digest": "b" * 16}}, "metrics": {"published": "merge"}}],
)
def test_a_card_about_another_model_is_refused(about: dict[str, Any]) -> None:
    with pytest.raises(ContractError, match="Make the card again with `just rerun stage=card`"):
        select_files(artifact("merge", MODEL), artifact("card", CARD, **about))


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"size": 2, "sha256": "0" * 64}, "it has 1 bytes, its manifest says 2"),
        ({"size": 1, "sha256": "0" * 64}, "sha256"),
    ],
)
def test_a_copy_that_differs_from_its_manifest_is_refused(tmp_path: Path, facts: dict[str, Any], words: str) -> None:
    source = tmp_path / "x"
    source.write_bytes(b"1")
    (tmp_path / "to").mkdir()
    with pytest.raises(ContractError, match=f"x was not published: .*{words}"):
        copy_files({"x": (source, facts)}, tmp_path / "to")
