"""Which options TRL's and peft's config classes have, read from their source without importing torch.

Usage: `check_train_options("SFTConfig", {"learning_rate": 1e-5}, stage="sft")`.

Importing TRL takes seconds; planning must not. Names, types and defaults come from the class bodies by `ast`;
a test compares them with the real classes. The real class is still built, and checks its values, when a stage runs.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib.util
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from common.config.numbers import SOUND, shown, unsound
from common.errors import ConfigError, did_you_mean, quoted

Files = tuple[tuple[str, str, str], ...]
Origin = Callable[[str], str]  # from a key to the layer that set it, or ""


def _of_trl(name: str, path: str) -> Files:
    return (
        ("transformers", "training_args.py", "TrainingArguments"),
        ("trl", "trainer/base_config.py", "_BaseConfig"),
        ("trl", path, name),
    )


# Class -> the files (package, path) whose class bodies make it up, base classes first.
CLASSES: dict[str, Files] = {
    "SFTConfig": _of_trl("SFTConfig", "trainer/sft_config.py"),
    "DPOConfig": _of_trl("DPOConfig", "trainer/dpo_config.py"),
    "KTOConfig": _of_trl("KTOConfig", "trainer/kto_config.py"),
    "ORPOConfig": _of_trl("ORPOConfig", "experimental/orpo/orpo_config.py"),
    "RewardConfig": _of_trl("RewardConfig", "trainer/reward_config.py"),
    "GRPOConfig": _of_trl("GRPOConfig", "trainer/grpo_config.py"),
    "RLOOConfig": _of_trl("RLOOConfig", "trainer/rloo_config.py"),
    "LoraConfig": (("peft", "tuners/lora/config.py", "LoraConfig"),),
    "BitsAndBytesConfig": (("transformers", "utils/quantization_config.py", "BitsAndBytesConfig"),),
}


# Options of older versions, and of TRL's command line, that are still in people's files: name -> annotation.
OLDER = {
    "warmup_ratio": "float | None", "no_cuda": "bool", "max_seq_length": "int | None",
    "max_prompt_length": "int | None",
    "max_completion_length": "int | None", "evaluation_strategy": "str", "overwrite_output_dir": "bool",
    "logging_dir": "str | None", "save_safetensors": "bool", "group_by_length": "bool", "dtype": "str | None",
    "torch_dtype": "str | None", "model_name_or_path": "str | None", "model_revision": "str | None",
    "attn_implementation": "str | None", "dataset_name": "str | None", "dataset_config": "str | None",
    "dataset_train_split": "str", "dataset_test_split": "str", "use_peft": "bool", "load_in_4bit": "bool",
    "load_in_8bit": "bool", "lora_r": "int | None", "lora_alpha": "int | None", "lora_dropout": "float | None",
    "lora_target_modules": "list[str] | str | None", "lora_modules_to_save": "list[str] | None", "use_dora": "bool",
    "use_rslora": "bool", "truncation_mode": "str", "padding_free": "bool", "dataset_num_proc": "int | None",
}  # fmt: skip
# The least and most of options whose absurd values the libraries accept silently.
RANGES: dict[str, tuple[int, int]] = {
    "learning_rate": (0, 10), "weight_decay": (0, 10), "beta": (0, 1000), "adam_beta1": (0, 1), "adam_beta2": (0, 1),
    "adam_epsilon": (0, 1), "label_smoothing_factor": (0, 1), "label_smoothing": (0, 1), "max_grad_norm": (0, 10**9),
    "warmup_steps": (0, 10**9), "r": (1, 10**5), "lora_alpha": (0, 10**6), "lora_dropout": (0, 1),
}  # fmt: skip
BOOLEANS = {"true": True, "yes": True, "false": False, "no": False}
# First values of an adapter that leave the weights under it alone.
STARTS = ("gaussian", "orthogonal")
# Packages of the optimizers whose names begin so (transformers, trainer_optimizer.py).
PACKAGES = {
    "adamw_torch_4bit": "torchao", "adamw_torch_8bit": "torchao", "adamw_torch_npu": "torch_npu",
    "adamw_torch_xla": "torch_xla", "adamw_anyprecision": "torchdistx", "galore": "galore_torch",
    "apollo": "apollo_torch", "lomo": "lomo_optim", "adalomo": "lomo_optim", "grokadamw": "grokadamw",
    "schedule_free": "schedulefree", "stable_adamw": "optimi", "paged_": "bitsandbytes", "lion_": "bitsandbytes",
    "ademamix": "bitsandbytes", "rmsprop_bnb": "bitsandbytes", "adamw_bnb_8bit": "bitsandbytes",
    "adamw_8bit": "bitsandbytes",
}  # fmt: skip
SIMPLE_TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,), "int": (int,), "float": (int, float), "str": (str,), "dict": (dict,), "list": (list,),
}  # fmt: skip


@functools.cache
def options_of(class_name: str) -> dict[str, str]:
    """Return option name -> annotation source of a config class, inherited ones included."""
    options: dict[str, str] = {}
    for package, path, name in CLASSES[class_name]:
        body = _body(package, path, name)
        for node in body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                annotation = ast.unparse(node.annotation)
                if not node.target.id.startswith("_") and "ClassVar" not in annotation:
                    options[node.target.id] = annotation
        if not options:  # no dataclass: the parameters of its constructor, with the types of their defaults
            start = next(n for n in body if isinstance(n, ast.FunctionDef) and n.name == "__init__").args
            for argument, default in zip(start.args[1:], map(ast.literal_eval, start.defaults), strict=True):
                options[argument.arg] = "Any" if default is None else type(default).__name__
    return options


@functools.cache
def optimizers() -> tuple[str, ...]:
    """Return the names that `train.optim` takes, as transformers lists them."""
    body = _body("transformers", "training_args.py", "OptimizerNames")
    values = (node.value for node in body if isinstance(node, ast.Assign))
    return tuple(str(value.value) for value in values if isinstance(value, ast.Constant))


def _body(package: str, path: str, name: str) -> list[ast.stmt]:
    """Return the body of a class in a package's file."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"The package {package} is not installed; run `just setup`.")
    tree = _parse(Path(spec.submodule_search_locations[0]) / path)
    return next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)


@functools.cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def annotation_of(class_name: str, name: str) -> str | None:
    """Return the annotation of an option that a class has, or had; None where it is unknown."""
    return options_of(class_name).get(name, OLDER.get(name))


@functools.cache
def default_option(class_name: str, name: str) -> Any:
    """Return the default that a config class has for a plain option."""
    for package, path, cls in reversed(CLASSES[class_name]):
        for node in _body(package, path, cls):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
                given = {part.arg: part.value for part in getattr(node.value, "keywords", ())}
                return ast.literal_eval(given["default"] if given else node.value or ast.Constant(None))
    raise KeyError(name)


def as_meant(class_name: str, name: str, value: Any) -> Any:
    """Return a value of an option as its class means it, where it is the text of a number, of a boolean or of None.

    YAML reads `None` as text, and so do quotes around a number; TRL's own command line takes both.
    """
    annotation = annotation_of(class_name, name)
    if not isinstance(value, str) or annotation is None:
        return int(value) if isinstance(value, float) and annotation and _counts(annotation, value) else value
    text = value.strip()
    if text == "None":
        return None
    types = plain_types(annotation)
    if "str" in types or not types:
        return value
    if "bool" in types and text.lower() in BOOLEANS:
        return BOOLEANS[text.lower()]
    for kind in (int, float):
        if kind.__name__ in types or (kind is int and "float" in types):
            with contextlib.suppress(ValueError):
                return kind(text)
    with contextlib.suppress(ValueError):  # such as 1e3 for a number of steps
        if "int" in types and float(text).is_integer():
            return int(float(text))
    return value


def _counts(annotation: str, value: float) -> bool:
    """Whether a number with a point stands for a whole one, such as 1e3 steps."""
    types = plain_types(annotation)
    return "int" in types and "float" not in types and value.is_integer()


def check_pasted(key: str, label: str, name: str, value: Any, class_name: str) -> None:
    """Check the type of an option that a stage takes as a setting of its own. Raises ConfigError."""
    annotation = annotation_of(class_name, name)
    if annotation is not None:
        _check_type(f"{key} ({label})", value, annotation)


def check_train_options(class_name: str, train: Mapping[str, Any], *, stage: str, origin: Origin) -> None:
    """Check a `train:` block against its TRL class. Raises ConfigError for the first wrong name or type."""
    for name, value in train.items():
        key = f"{stage}.train.{name}"
        _check_option(key, value, class_name, "TRL", origin)
        if name == "optim" and value not in (names := optimizers()):
            near = did_you_mean(str(value), names)
            raise ConfigError(f"{_placed(key, origin)}: transformers has no optimizer {quoted(value)}.{near}")


def check_lora_options(lora: Mapping[str, Any], *, stage: str, origin: Origin) -> None:
    """Check a `lora:` block against peft's LoraConfig. Raises ConfigError for the first wrong name or type."""
    for name, value in lora.items():
        _check_option(f"{stage}.lora.{name}", value, "LoraConfig", "peft", origin)
    start = lora.get("init_lora_weights", True)
    if not isinstance(start, bool) and start not in STARTS:
        raise ConfigError(
            f"{stage}.lora.init_lora_weights={start} changes the weights under the adapter, so it would not fit the "
            f"stage before it. Use true, {' or '.join(STARTS)}."
        )


def check_quantization_options(quantization: Mapping[str, Any], *, stage: str, origin: Origin) -> None:
    """Check a `quantization:` block against transformers' BitsAndBytesConfig. Raises ConfigError."""
    for name, value in quantization.items():
        _check_option(f"{stage}.quantization.{name}", value, "BitsAndBytesConfig", "transformers", origin)
    if not (quantization.get("load_in_4bit") or quantization.get("load_in_8bit")):
        raise ConfigError(f"{stage}.quantization quantises nothing; set load_in_4bit=true, or peft=lora.")


def package_of(optimizer: str) -> str:
    """Return the package that an optimizer needs beside torch, as it is imported; empty where none."""
    return next((package for start, package in PACKAGES.items() if optimizer.startswith(start)), "")


def needs_bitsandbytes(optimizer: str) -> bool:
    return package_of(optimizer) == "bitsandbytes"


def check_installed(key: str, package: str = "bitsandbytes") -> None:
    """Check that a package is there, without importing it. Raises ConfigError."""
    if importlib.util.find_spec(package) is None:
        instead = "run `just setup`" if package == "bitsandbytes" else "install it, or use adamw_torch_fused"
        raise ConfigError(f"{key} needs the package {package}, which is not installed; {instead}.")


def plain_types(annotation: str) -> list[str]:
    """Return the names in SIMPLE_TYPES that an annotation admits beside None; none where it admits anything richer."""
    parts = [part.strip().split("[")[0] for part in annotation.split("|")]
    plain = [part for part in parts if part != "None"]
    return plain if all(part in SIMPLE_TYPES for part in plain) else []


def _placed(key: str, origin: Origin) -> str:
    return f"{key} ({layer})" if (layer := origin(key)) else key


def _check_option(key: str, value: Any, class_name: str, library: str, origin: Origin) -> None:
    """Refuse a name that a class does not have, and a value whose plain type no part of its annotation admits.

    Anything richer is left to the class.
    """
    known, name, key = options_of(class_name), key.split(".", 2)[2], _placed(key, origin)
    if name not in known:
        raise ConfigError(f"{key}: {class_name} of {library} has no option '{name}'.{did_you_mean(name, known)}")
    _check_type(key, value, known[name])
    least, most = RANGES.get(name, (-math.inf, math.inf))
    if isinstance(value, int | float) and not least <= value <= most:
        raise ConfigError(f"{key}: expected a number from {least:,} to {most:,}, got {shown(value)}.")


def _check_type(key: str, value: Any, annotation: str) -> None:
    types = tuple(kind for name in plain_types(annotation) for kind in SIMPLE_TYPES[name])
    boolean = isinstance(value, bool) and bool not in types  # to Python, it is an int
    if value is not None and types and (boolean or not isinstance(value, types)):
        raise ConfigError(f"{key}: expected {annotation}, got {value!r} ({type(value).__name__}).")
    if wrong := next(unsound(value), None):
        raise ConfigError(f"{key}: expected {SOUND}; got {shown(wrong[1])}.")
