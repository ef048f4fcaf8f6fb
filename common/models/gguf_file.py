"""What a GGUF file says of its model in its header: shapes, names and licence, without reading a weight.

Usage: `header = read_gguf(path)`; `config_of_gguf(header)` has the keys of a config.json; `check_gguf(path)`.

The package gguf reads a header in seconds, since it keeps every token; this takes what a plan needs, in a tenth of one.
The weights are read by transformers (`common.models.checkpoint`). Format: ggml's docs/gguf.md, versions 2 and 3.
"""

from __future__ import annotations

import contextlib
import functools
import math
import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import DataError
from common.store.cache import stamp_of
from common.system.files import open_regular

SUFFIX = ".gguf"
STRING, ARRAY = 8, 9
LONGEST_TEXT = 2**24  # bytes; a stranger's file may say anything
LONGEST_LIST = 4096  # numbers that are kept of a list: one a layer, and not one a token
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
# Architectures of llama.cpp whose decoders transformers 5.23 unpacks -> their model_type.
FAMILIES = {
    "llama": "llama", "mistral": "mistral", "qwen2": "qwen2", "qwen2moe": "qwen2_moe", "qwen3": "qwen3",
    "qwen3moe": "qwen3_moe", "gemma2": "gemma2", "gemma3": "gemma3_text", "phi3": "phi3", "gpt2": "gpt2",
    "falcon": "falcon", "stablelm": "stablelm", "starcoder2": "starcoder2", "nemotron": "nemotron",
}  # fmt: skip
KEYS = {  # of config.json -> of a header, behind the architecture's name
    "hidden_size": "embedding_length", "intermediate_size": "feed_forward_length", "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count", "num_key_value_heads": "attention.head_count_kv",
    "max_position_embeddings": "context_length", "vocab_size": "vocab_size", "num_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
}  # fmt: skip

SHAPE = ("hidden_size", "num_hidden_layers", "num_attention_heads")  # without which there is no model


@dataclass(frozen=True)
class GgufHeader:
    """Metadata without the lists that go by tokens, and of each tensor its shape, its type and where it begins."""

    metadata: dict[str, Any]
    tensors: dict[str, tuple[tuple[int, ...], int, int]]  # sizes, fastest first; type; offset from `start`
    start: int  # of the tensors' bytes in the file

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    @property
    def parameters(self) -> int:
        """Number of weights; tied ones are stored once."""
        return sum(math.prod(sizes) for name, (sizes, _, _) in self.tensors.items() if name != "rope_freqs.weight")


def read_gguf(path: Path) -> GgufHeader:
    """Read the header, once while the file stays the same. Raises DataError for a file that is none, or cut short."""
    try:
        return _read(path, tuple(stamp_of(path)))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


@functools.lru_cache(maxsize=8)
def _read(path: Path, stamp: tuple[int, ...]) -> GgufHeader:
    try:
        with open_regular(path) as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data).header()
    except (ValueError, TypeError, ArithmeticError, struct.error, IndexError, KeyError) as error:
        raise DataError(f"{path} is no whole GGUF file of version 2 or 3. Copy or download it again.") from error


class _Reader:
    """A place in the bytes of a file."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.place = data, 0

    def header(self) -> GgufHeader:
        magic, version, num_tensors, num_keys = self.take("4sIQQ")
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError("no GGUF")
        found = ((self.text(), self.value(self.take("I")[0])) for _ in range(num_keys))
        metadata = {key: value for key, value in found if value is not None}
        tensors = {}
        for _ in range(num_tensors):
            name, (rank,) = self.text(), self.take("I")
            *sizes, kind, offset = self.take(f"{rank}QIQ")
            tensors[name] = (tuple(sizes), kind, offset)
        if self.place > len(self.data):
            raise ValueError("cut short")
        alignment = int(metadata.get("general.alignment", 32))
        return GgufHeader(metadata, tensors, -(-self.place // alignment) * alignment)

    def take(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{form}", self.data, self.place)
        self.place += struct.calcsize(f"<{form}")
        return values

    def text(self) -> str:
        (length,) = self.take("Q")
        if length > LONGEST_TEXT:
            raise ValueError("no text is as long")
        return bytes(self.take(f"{length}s")[0]).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        """Return a value; of a short list of numbers the list, and of a long one or one of texts nothing."""
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            return self.take(NUMBERS[kind])[0]
        inner, number = self.take("IQ")
        if inner != STRING and number <= LONGEST_LIST:
            return list(self.take(f"{number}{NUMBERS[inner]}"))
        if inner != STRING:
            self.place += number * struct.calcsize(f"<{NUMBERS[inner]}")
            return None
        for _ in range(number):
            (length,) = struct.unpack_from("<Q", self.data, self.place)
            self.place += 8 + length
        return None


@contextlib.contextmanager
def reading_once() -> Iterator[None]:
    """Let the package gguf go through a file's header once, for whatever transformers loads from it meanwhile.

    transformers 5.23 does so three times for a model and its tokenizer, and each time every token becomes an array. It
    also asks for the names of all tensors of an architecture once in each module, which are the same each time.
    """
    import gguf

    reader, names, readers = gguf.GGUFReader, gguf.get_tensor_name_map, dict[str, Any]()

    def once(path: str | Path) -> Any:
        real = os.path.realpath(path)
        if real not in readers:
            readers[real] = reader(path)
        return readers[real]

    gguf.GGUFReader, gguf.get_tensor_name_map = once, functools.cache(names)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = reader, names


def config_of_gguf(header: GgufHeader) -> dict[str, Any]:
    """Return what the header says, under the keys of a config.json, and `parameters`."""
    name, given = header.architecture, header.metadata
    found: dict[str, Any] = {"model_type": FAMILIES.get(name, name), "parameters": header.parameters}
    for key, inner in KEYS.items():
        value = given.get(f"{name}.{inner}")
        if isinstance(value, list):  # some give a number per layer
            value = max(value, default=0)
        if isinstance(value, int) and value > 0:
            found[key] = value
    if (embedding := header.tensors.get("token_embd.weight")) and embedding[0]:
        found["vocab_size"] = embedding[0][-1]
    size = given.get(f"{name}.attention.key_length")
    if size is None and {"hidden_size", "num_attention_heads"} <= found.keys():
        size = found["hidden_size"] // found["num_attention_heads"]
    return {**found, "head_dim": size, "tie_word_embeddings": "output.weight" not in header.tensors}


def check_gguf(path: Path) -> GgufHeader:
    """Check that a file is whole and of a family that can be unpacked. Raises DataError with the next step."""
    from gguf import GGML_QUANT_SIZES

    header = read_gguf(path)
    if header.architecture not in FAMILIES:
        raise DataError(
            f"{path} holds a model of the architecture {header.architecture or '(none)'}, which is not unpacked from "
            f"GGUF; known: {', '.join(FAMILIES)}. Give the model's folder of safetensors."
        )
    if header.metadata.get("split.count", 1) != 1:
        raise DataError(
            f"{path} is one part of a model in several files. Join them with llama.cpp's llama-gguf-split --merge, and "
            "give the file that it writes."
        )
    known = config_of_gguf(header)
    if missing := [KEYS[key] for key in SHAPE if key not in known]:
        raise DataError(f"{path}: its header lacks {header.architecture}.{missing[0]}. Give another GGUF file.")
    end = header.start
    for name, (sizes, kind, offset) in header.tensors.items():
        if kind not in GGML_QUANT_SIZES:
            raise DataError(f"{path}: the tensor {name} is of type {kind}, which the package gguf does not know.")
        block, size = GGML_QUANT_SIZES[kind]
        end = max(end, header.start + offset + math.prod(sizes) // block * size)
    if (found := path.stat().st_size) < end:
        raise DataError(f"{path} is cut short: {found:,} bytes, its header says {end:,}. Copy or download it again.")
    return header
