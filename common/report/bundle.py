"""The files of a published model: which are selected, which are refused, and whether a copy equals its original.

Usage: `files = select_files(model, card)`; `copy_files(files, folder)`.

It copies and checks; versions, links and the Hub are `common.stages.publish`.
"""

from __future__ import annotations

import fnmatch
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import ContractError
from common.store.artifacts import Artifact, digest_file

log = logging.getLogger(__name__)

Files = Mapping[str, tuple[Path, Mapping[str, Any]]]  # name -> (path, size and sha256 of its manifest)

MODEL_FILES = (
    "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "adapter_config.json",
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja", "additional_chat_templates/*.jinja",
    "mergekit.yaml",
)  # fmt: skip
CARD_FILES = ("README.md", "summary.json", "card.json", "*.png")
REQUIRED = ("config.json", "tokenizer_config.json", "*.safetensors")
# Loading one of these runs code that is in the file.
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.joblib")


def select_files(model: Artifact, card: Artifact) -> Files:
    """Return name -> (path, size and sha256 of the manifest) of everything that is published.

    Raises ContractError for a pickle among the model's files, or if a file is missing that loading needs.
    """
    _check_card(model, card)
    pickles = sorted(name for name in model.manifest["files"] if matches(Path(name).name, PICKLES))
    if pickles:
        raise ContractError(
            f"Stage {model.stage} saved {', '.join(pickles)}, and loading a pickle runs code from it, so it is not "
            "published. Save the weights as safetensors and run the stage again."
        )
    selected = {}
    for artifact, patterns in ((model, MODEL_FILES), (card, CARD_FILES)):
        for name, facts in artifact.manifest["files"].items():
            if matches(name, patterns):
                selected[name] = (artifact.path / name, facts)
    missing = [pattern for pattern in REQUIRED if not fnmatch.filter(selected, pattern)]
    missing += ["README.md"] if "README.md" not in selected else []
    if missing:
        raise ContractError(
            f"Stage {model.stage} and its card have no {', '.join(missing)}, which a published model needs. "
            "Run that stage again with `just rerun`."
        )
    left_out = sorted(set(model.manifest["files"]) - set(selected))
    log.info("publish: %d files, left out: %s", len(selected), ", ".join(left_out) or "none")
    return selected


def _check_card(model: Artifact, card: Artifact) -> None:
    """Raise ContractError for a card that describes another model."""
    seen = card.manifest.get("inputs", {}).get(model.stage, {}).get("digest")
    about = card.manifest.get("metrics", {}).get("published", model.stage)
    if about != model.stage or seen not in (None, model.digest):
        raise ContractError(
            f"The card describes {about} ({str(seen)[:12]}), but the model to publish is {model.stage} "
            f"({model.digest[:12]}). Make the card again with `just rerun stage={card.stage}`."
        )


def copy_files(files: Files, folder: Path) -> None:
    """Copy the files and compare each copy with the manifest. Raises ContractError if one differs."""
    for name, (source, facts) in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        with target.open("rb") as stream:
            os.fsync(stream.fileno())
        problem = difference(target, facts)
        if problem:
            raise ContractError(
                f"{name} was not published: {problem}. The stored copy was changed or the disk failed. "
                f"Make it again with `just rerun stage=<stage>` (folder {source.parent.name})."
            )


def difference(path: Path, facts: Mapping[str, Any]) -> str | None:
    """Say how a file differs from its manifest, or None."""
    if not path.is_file():
        return "it is missing"
    size = path.stat().st_size
    if size != facts["size"]:
        return f"it has {size} bytes, its manifest says {facts['size']}"
    digest = digest_file(path)
    expected = str(facts["sha256"])
    return None if digest == expected else f"its sha256 is {digest[:12]}, its manifest says {expected[:12]}"


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Match a path part by part, so that `*` does not match a slash."""
    return any(name.count("/") == pattern.count("/") and fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def digests(files: Files) -> dict[str, str]:
    return {name: str(facts["sha256"]) for name, (_, facts) in sorted(files.items())}
