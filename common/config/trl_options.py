"""Which options TRL's and peft's config classes have, read from their source without importing torch.

Usage: `check_train_options("SFTConfig", {"learning_rate": 1e-5}, stage="sft")`.

Importing TRL takes seconds; planning must not. Names, types and defaults come from the class bodies by `ast`;
a test compares them with the real classes. The real class is still built, and checks its values, when a stage runs.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import ConfigError, did_you_mean

Files = tuple[tuple[str, str, str], ...]


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


def _by_name(advice: dict[str, str]) -> dict[str, str]:
    """Return name -> advice of a table that gives several names, with spaces between them, the same advice."""
    return {name: text for names, text in advice.items() for name in names.split()}


# Options that a stage derives from its own settings: name -> what to set instead.
OWNED = _by_name({
    "output_dir": "out=<folder>",
    "resume_from_checkpoint": "nothing: a stage resumes by itself",
    "num_train_epochs": "{stage}.epochs",
    "max_steps": "{stage}.tokens",
    "per_device_train_batch_size gradient_accumulation_steps":
        "{stage}.batch_tokens, and run.micro_batch_tokens for memory",
    "lr_scheduler_type": "{stage}.schedule.kind",
    "lr_scheduler_kwargs": "{stage}.schedule",
    "warmup_ratio warmup_steps": "{stage}.schedule.warmup",
    "seed data_seed": "seed=<number>",
    "max_length": "{stage}.sequence_length",
    "use_cpu no_cuda": "run.device",
    "report_to": "nothing: the log is in the artifact's log.jsonl",
    "push_to_hub hub_model_id": "publish.to=hub:<owner>/<name>",
    "hub_token": "the environment variable HF_TOKEN",
    "dataloader_num_workers": "run.workers",
    "save_strategy save_steps": "run.checkpoint_minutes",
    "trust_remote_code": "model.trust_remote_code",
    "model_init_kwargs": "model.dtype and model.revision",
    "eval_strategy do_eval load_best_model_at_end": "nothing: the exam evaluates every stage that the pipeline names",
    "save_only_model": "nothing: a stage needs the optimizer's state to resume",
    "remove_unused_columns": "nothing: the columns follow from the packing",
    "fsdp fsdp_config": "run.parallelism=fsdp2 and run.processes",
    "deepspeed": "run.parallelism=zero3 and run.processes",
    "accelerator_config": "nothing: processes are set up by run.parallelism and run.processes",
})  # fmt: skip
PAIRWISE = ("DPOConfig", "KTOConfig", "ORPOConfig", "RewardConfig")
OWNED_PAIRWISE = _by_name({
    "max_steps": "{stage}.epochs",
    "per_device_train_batch_size gradient_accumulation_steps":
        "{stage}.batch_pairs, and run.micro_batch_tokens for memory",
})  # fmt: skip
REWARDED = ("GRPOConfig", "RLOOConfig")
OWNED_REWARDED = _by_name({
    "max_steps num_train_epochs": "{stage}.steps",
    "per_device_train_batch_size gradient_accumulation_steps":
        "{stage}.prompts_per_step, and run.micro_batch_tokens for memory",
    "num_generations": "{stage}.samples",
    "generation_batch_size": "{stage}.prompts_per_step",
    "max_completion_length": "{stage}.answer_tokens",
    "reward_weights": "{stage}.rewards.<name>.weight",
    "shuffle_dataset": "nothing: prompts come in a seeded order, a new one for every pass",
    "logging_steps": "nothing: every step is logged",
    "sync_ref_model": "nothing: the reference is the stage before, from the first step to the last",
    "num_iterations steps_per_generation":
        "nothing: answers are used once, so that a run that was stopped can go on exactly",
})  # fmt: skip
# Options of TRL's own row preparation, which `packing: isolated` replaces.
TRL_ROWS_ONLY = (
    "packing", "packing_strategy", "padding_free", "pad_to_multiple_of", "eval_packing", "truncation_mode",
    "shuffle_dataset", "dataset_text_field", "dataset_kwargs", "dataset_num_proc", "eos_token", "pad_token",
    "chat_template_path", "completion_only_loss", "train_sampling_strategy",
)  # fmt: skip
# Options whose negative values TRL accepts silently.
NOT_NEGATIVE = ("learning_rate", "weight_decay", "beta", "adam_epsilon", "label_smoothing_factor", "label_smoothing")
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


def owned_by(class_name: str) -> dict[str, str]:
    """Return the options of a TRL class that a stage derives from its own settings -> what to set instead."""
    extra = OWNED_PAIRWISE if class_name in PAIRWISE else OWNED_REWARDED if class_name in REWARDED else {}
    return OWNED | extra


def check_train_options(class_name: str, train: Mapping[str, Any], *, stage: str, packing: str = "isolated") -> None:
    """Check a `train:` block against its TRL class. Raises ConfigError for the first wrong name or type."""
    known, owned = options_of(class_name), owned_by(class_name)
    for name, value in train.items():
        key = f"{stage}.train.{name}"
        if name in owned:
            advice = owned[name].format(stage=stage)
            if advice.startswith("nothing: "):
                raise ConfigError(f"{key} cannot be set here: {advice.removeprefix('nothing: ')}.")
            raise ConfigError(f"{key} is derived here; set {advice} instead.")
        if name in TRL_ROWS_ONLY and class_name == "SFTConfig" and packing == "isolated" and name in known:
            raise ConfigError(f"{key} belongs to TRL's own row preparation; set {stage}.packing=trl to use it.")
        _check_option(key, value, class_name, "TRL")
        if name == "optim" and value not in (names := optimizers()):
            raise ConfigError(f"{key}={value}: transformers has no such optimizer.{did_you_mean(str(value), names)}")
        if name in NOT_NEGATIVE and isinstance(value, int | float) and value < 0:
            raise ConfigError(f"{key}: expected a number of at least 0, got {value}.")


def check_lora_options(lora: Mapping[str, Any], *, stage: str) -> None:
    """Check a `lora:` block against peft's LoraConfig. Raises ConfigError for the first wrong name or type."""
    for name, value in lora.items():
        _check_option(f"{stage}.lora.{name}", value, "LoraConfig", "peft")
    start = lora.get("init_lora_weights", True)
    if not isinstance(start, bool) and start not in STARTS:
        raise ConfigError(
            f"{stage}.lora.init_lora_weights={start} changes the weights under the adapter, so it would not fit the "
            f"stage before it. Use true, {' or '.join(STARTS)}."
        )


def check_quantization_options(quantization: Mapping[str, Any], *, stage: str) -> None:
    """Check a `quantization:` block against transformers' BitsAndBytesConfig. Raises ConfigError."""
    for name, value in quantization.items():
        _check_option(f"{stage}.quantization.{name}", value, "BitsAndBytesConfig", "transformers")
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


def _check_option(key: str, value: Any, class_name: str, library: str) -> None:
    """Refuse a name that a class does not have, and a value whose plain type no part of its annotation admits.

    Anything richer is left to the class.
    """
    known, name = options_of(class_name), key.split(".", 2)[2]
    if name not in known:
        raise ConfigError(f"{key}: {class_name} of {library} has no option '{name}'.{did_you_mean(name, known)}")
    annotation = known[name]
    types = tuple(kind for name in plain_types(annotation) for kind in SIMPLE_TYPES[name])
    boolean = isinstance(value, bool) and bool not in types  # to Python, it is an int
    if value is not None and types and (boolean or not isinstance(value, types)):
        raise ConfigError(f"{key}: expected {annotation}, got {value!r} ({type(value).__name__}).")
