"""Ways to break a tiny checkpoint, each a function that changes its folder.

Usage: `put("config.json", hidden_size="64")(folder)`; `header(lambda tensors: {})(folder)`; `gguf(cut)(folder)`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Break = Callable[[Path], Any]
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
CONFIG, TOKENIZER, TOKENS = "config.json", "tokenizer_config.json", "tokenizer.json"
GENERATION = "generation_config.json"
DEEP = "[" * 100_000
UP = "model.layers.0.mlp.up_proj.weight"


def put(name: str, **keys: Any) -> Break:
    """Set keys of a JSON file; `a__b` is the key b of the object a."""

    def change(folder: Path) -> None:
        found = json.loads((folder / name).read_text(encoding="utf-8"))
        for key, value in keys.items():
            *path, last = key.split("__") if key.strip("_") == key else [key]
            place = found
            for part in path:
                place = place[part]
            place[last] = value
        (folder / name).write_text(json.dumps(found), encoding="utf-8")

    return change


def write(name: str, content: str | bytes) -> Break:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def cut(name: str) -> Break:
    """Leave the first half of a file."""

    def change(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return change


def longer(name: str) -> Break:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes() + b"more")


def renamed(name: str, other: str, beside: tuple[str, str]) -> Break:
    """Give a file another name, and write one beside it."""

    def change(folder: Path) -> None:
        (folder / name).rename(folder / other)
        write(*beside)(folder)

    return change


def instead(name: str, make: Callable[[Path], Any]) -> Break:
    """Put what `make` makes in a file's place."""

    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return change


def header(change: Callable[[dict[str, Any]], Any]) -> Break:
    """Change the header of the weights, in place or to what is returned."""

    def rewrite(folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        end = 8 + int.from_bytes(data[:8], "little")
        tensors = json.loads(data[8:end])
        found = change(tensors)
        text = found if isinstance(found, bytes) else json.dumps(tensors if found is None else found).encode()
        (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + data[end:])

    return rewrite


def entry(**facts: Any) -> Break:
    """Change what the header says of one tensor; None takes a fact away."""

    def change(tensors: dict[str, Any]) -> None:
        tensors[UP] = {key: value for key, value in {**tensors[UP], **facts}.items() if value is not None}

    return header(change)


def weights(change: Callable[[dict[str, Any]], Any]) -> Break:
    """Change the tensors themselves."""

    def rewrite(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return rewrite


def index(**names: Any) -> Break:
    """Write an index that puts tensors in these files."""
    return write(INDEX, json.dumps({"weight_map": names}))


def template(text: Any) -> Break:
    """Give the tokenizer a chat template."""

    def change(folder: Path) -> None:
        (folder / "chat_template.jinja").unlink(missing_ok=True)
        put(TOKENIZER, chat_template=text)(folder)

    return change


def gguf(change: Callable[[bytearray], bytes | bytearray | None]) -> Break:
    """Put a GGUF file, changed, in the folder's place."""

    def replace(folder: Path) -> None:
        from tests.models.test_gguf_file import write_gguf

        for path in folder.iterdir():
            path.unlink()
        write_gguf(folder / "model.gguf")
        data = bytearray((folder / "model.gguf").read_bytes())
        found = change(data)
        (folder / "model.gguf").write_bytes(data if found is None else found)

    return replace
