"""What the JSON files beside a checkpoint's weights say, checked before a plan or another library uses it.

Usage: `check_settings(folder)`; `config = read_config(folder)`.

Checked are the keys that we read ourselves, and those whose nonsense costs memory or time in transformers. All else is
transformers' to refuse (`common.models.checkpoint.explain_loading`).
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from common.config.json import read_json
from common.errors import DataError, quoted
from common.models.boundary import COPY_AGAIN
from common.system.files import MIB, read_text_file

CONFIG, GENERATION, TOKENIZER = "config.json", "generation_config.json", "tokenizer_config.json"
NESTED = ("text_config", "thinker_config")  # keys of config.json under which a language model is a part of another
ADAPTER = "adapter_config.json"
TEMPLATE = "chat_template.jinja"
SUFFIXES = (".json", ".safetensors", ".jinja", ".model", ".txt")  # of the files that may be read
LARGEST, MOST_LAYERS = 2**31, 10_000  # of a size; of layers, each of which is built before a weight is read
Rule = tuple[str, Callable[[Any], bool]]  # what is expected, and whether a value is that


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value < LARGEST


def _is_id(value: Any) -> bool:
    return type(value) is int and -1 <= value < LARGEST  # -1: none, as older Llama checkpoints write it


def _is_packing(value: Any) -> bool:
    if not (isinstance(value, dict) and isinstance(value.get("quant_method"), str)):
        return False
    blocks = value.get("weight_block_size")
    return blocks is None or (isinstance(blocks, list) and len(blocks) == 2 and all(map(_is_size, blocks)))


def _is_fraction(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _is_token(value: Any) -> bool:
    return isinstance(value.get("content") if isinstance(value, dict) else value, str)


def _are_templates(value: Any) -> bool:
    """One template, or several by name: as a list of pairs, or as a mapping."""
    if isinstance(value, list):
        return all(isinstance(one, dict) and {"name", "template"} <= one.keys() for one in value) and all(
            isinstance(one["name"], str) and _is_template(one["template"]) for one in value
        )
    return _is_template(value) or (isinstance(value, dict) and all(map(_is_template, value.values())))


def _is_template(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MIB


def _are_added(value: Any) -> bool:
    """Added tokens by their ids, as texts of digits."""
    return isinstance(value, dict) and all(
        key.isdecimal() and len(key) < 10 and isinstance(token, dict) and isinstance(token.get("content"), str)
        for key, token in value.items()
    )


SIZE: Rule = (f"a whole number from 1 to {LARGEST:,}", _is_size)
LAYERS: Rule = (f"a whole number from 1 to {MOST_LAYERS:,}", lambda value: _is_size(value) and value <= MOST_LAYERS)
SIZES: Rule = (
    SIZE[0],
    lambda value: all(map(_is_size, value)) if isinstance(value, list) and value else _is_size(value),
)
FRACTION: Rule = ("a number from 0 on", _is_fraction)
TEXT: Rule = ("a text", lambda value: isinstance(value, str))
TOKEN: Rule = ("a text, or an object with a text `content`", _is_token)
ID: Rule = ("a whole number, the place of a token", _is_id)
IDS: Rule = (
    "the place of a token or a list of such whole numbers",
    lambda value: all(map(_is_id, value)) if isinstance(value, list) else _is_id(value),
)
PACKING: Rule = (
    "an object with a text `quant_method`, and two sizes as `weight_block_size` if it has one",
    _is_packing,
)
PART: Rule = ("the settings of a language model", lambda value: isinstance(value, dict))
STOPS = {"eos_token_id": IDS, "pad_token_id": ID, "bos_token_id": IDS}
RULES: Mapping[str, tuple[str, Mapping[str, Rule]]] = {  # file -> what it holds, and the rule of each key
    CONFIG: (
        "the settings of a model",
        {
            **dict.fromkeys(
                ("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size", "n_embd",
                 "n_head", "n_positions", "max_position_embeddings"), SIZE,
            ),
            **dict.fromkeys(("num_hidden_layers", "n_layer"), LAYERS), "intermediate_size": SIZES,
            **dict.fromkeys(("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "initializer_range"), FRACTION),
            **STOPS, "model_type": TEXT, "dtype": TEXT, "torch_dtype": TEXT, "hidden_act": TEXT,
            "architectures": (
                "a list of names",
                lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
            ),
            "output_attentions": ("false, as fast attention returns no weights", lambda value: value is False),
            "quantization_config": PACKING, **dict.fromkeys(NESTED, PART),
            "tie_word_embeddings": ("true or false", lambda value: isinstance(value, bool)),
        },
    ),
    GENERATION: ("settings of generation", STOPS),
    TOKENIZER: (
        "the settings of a tokenizer",
        {
            **dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), TOKEN), "tokenizer_class": TEXT,
            "model_max_length": ("a number above 0", lambda value: _is_fraction(value) and value > 0),
            "chat_template": (f"a template as text of at most {MIB:,} characters, or several by name", _are_templates),
            "added_tokens_decoder": ("an object from ids to tokens with a text `content`", _are_added),
        },
    ),
    "special_tokens_map.json": ("the special tokens of a tokenizer", {}),
    "added_tokens.json": ("tokens with their ids", {}),
    "chat_template.json": ("a `chat_template`", {"chat_template": ("a text", TEXT[1])}),
}  # fmt: skip


def check_settings(folder: Path) -> None:
    """Check the files of a folder that are there; config.json must be. Raises DataError naming file, key and value."""
    if (folder / ADAPTER).exists():
        raise DataError(
            f"{folder / ADAPTER} makes this folder an adapter, whose base would be loaded from elsewhere; expected a "
            "whole model. Merge the adapter into its base (peft's merge_and_unload), or remove the file."
        )
    for path in folder.iterdir():
        if path.suffix in SUFFIXES:
            _require_file(path)
    config = read_config(folder)
    for name in RULES:
        if name != CONFIG and (folder / name).is_file():
            found = _read(folder / name)
            if name == GENERATION:
                _check_stops(folder / name, found, config)
    if (path := folder / TEMPLATE).is_file():
        read_text_file(path, largest=MIB)


def _require_file(path: Path) -> None:
    """Check that a path leads to a file that may be read. Raises DataError."""
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
        wrong = "" if is_file and os.access(path, os.R_OK) else "may not be read" if is_file else "is no file"
    except OSError as error:  # a link to nothing, or one that goes in a circle
        wrong = f"cannot be read ({error.strerror})"
    if wrong:
        raise DataError(f"{path} {wrong}; expected a file of the checkpoint. Put it there, or remove the entry.")


def read_config(folder: Path) -> dict[str, Any]:
    """Return what config.json says. Raises DataError where it is missing or cannot be right."""
    path = folder / CONFIG
    if not (path.exists() or path.is_symlink()):
        raise DataError(f"{folder} is no checkpoint: {CONFIG} is missing. Give a folder made by save_pretrained.")
    if path.is_file() and (size := path.stat().st_size) > MIB:  # which transformers copies again and again
        raise DataError(f"{path} has {size:,} bytes; expected the settings of a model, {MIB:,} at most. {COPY_AGAIN}")
    config = _read(path)
    _check_stops(path, config, config)
    return config


def require_decoder(folder: Path) -> None:
    """Check that the model of a folder reads from left to right, as far as its config.json says. Raises DataError.

    What its kind of model does by itself is known once transformers has read it (`contracts.check_decoder`).
    """
    config = read_config(folder) if folder.is_dir() else {}
    named = next(iter(config.get("architectures") or ()), "")
    if config.get("is_encoder_decoder") is True:
        what = "has an encoder (is_encoder_decoder)"
    elif named.endswith("ForMaskedLM") and config.get("is_decoder") is not True:
        what = f"reads in both directions ({named})"
    else:
        return
    raise DataError(
        f"{folder / CONFIG}: the model {what}; expected one that reads from left to right, such as Llama. Take another "
        "checkpoint."
    )


def _check_stops(path: Path, found: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Check that the tokens that a file names are in the vocabulary: no model writes others. Raises DataError."""
    of_part = (config.get(key) for key in NESTED)
    sizes = (place.get("vocab_size") for place in (config, *of_part) if isinstance(place, dict))
    size = next((found for found in sizes if found is not None), None)
    for key in STOPS:
        value = found.get(key)
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if size is not None and (beyond := [one for one in ids if one >= size]):
            raise DataError(
                f"{path}: {key} names the token {beyond[0]:,}; expected one of a vocabulary of {size:,}, from 0 to "
                f"{size - 1:,} (vocab_size in {CONFIG}). Correct the file, or copy it again."
            )


def _read(path: Path) -> dict[str, Any]:
    holds, rules = RULES[path.name]
    found = read_json(path, strict=False)
    if not isinstance(found, dict):
        raise DataError(f"{path} holds {quoted(found)}; expected a JSON object with {holds}. {COPY_AGAIN}")
    nested = [(f"{key}.", part) for key in NESTED if isinstance(part := found.get(key), dict)]
    for place, settings in (("", found), *nested):
        for key, (expected, fits) in rules.items():
            value = settings.get(key)
            if value is not None and not fits(value):
                raise DataError(
                    f"{path}: {place}{key} is {quoted(value)}; expected {expected}. Correct the file, or copy it again."
                )
    return found
