"""The stage `merge`: the weights of several checkpoints of the chain put together by mergekit.

Usage: named by a pipeline as `merge: {kind: merge, from: dpo, with: [base]}`; the settings give the weights.

Chat template, stop ids and tokenizer are copied from the parent, so that they stay the trained ones. What a merge
may ask for is `common.training.merging`. The arithmetic is mergekit's, always on the CPU, where the random methods give
the same weights for a seed on every machine. It aligns no tokenizers and mixes no architectures: checkpoints that
differ are refused.
"""

from __future__ import annotations

import errno
import importlib.metadata
import logging
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from common.config.kinds import Kind
from common.config.node import Node
from common.config.resolve import Resolved
from common.config.stages import MergeSettings
from common.errors import ConfigError, ContractError
from common.models.finite import require_finite, weights_in
from common.models.growth.record import carry
from common.models.planned import config_after
from common.models.rope import base_of, rope_of
from common.models.settings_files import read_config
from common.models.shards import read_header, shards_of
from common.stage import StageContext, StageReport
from common.store.artifacts import Artifact, write_json, writing
from common.training.mergekit_patches import fresh_loaders, listed_as_stored, quiet_mergekit
from common.training.merging import build_recipe, check_merge, check_stages, list_weights

LOG = logging.getLogger(__name__)
RECIPE = "mergekit.yaml"
ONE_FILE = 2**62  # bytes per shard: readers of an artifact expect one model.safetensors
PARENT_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "tokenizer.model", "chat_template.jinja", "generation_config.json",
)  # fmt: skip
# What config.json says of the arithmetic and no tensor's shape shows. Token ids may differ: the parent's are kept.
ARCHITECTURE_KEYS = (
    "architectures", "model_type", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "hidden_act", "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters", "sliding_window", "layer_types",
    "tie_word_embeddings",
)  # fmt: skip
GROWN_KEYS = ("model_type", "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
OUTPUT_HEAD = "lm_head.weight"

Shapes = dict[str, list[int]]


def run(context: StageContext) -> StageReport:
    """Merge the inputs that the settings name into one checkpoint.

    Raises ConfigError for settings that cannot be merged, ContractError for checkpoints that do not fit together
    or a result that is not finite.
    """
    import yaml

    settings = cast(MergeSettings, context.settings)
    check_stages(settings, list(context.inputs), context.stage)
    check_merge(settings, context.stage)
    members = settings.members()
    parent = context.parent or members[0]
    folders = {name: context.inputs[name].path for name in dict.fromkeys([parent, *members])}
    configs = {name: _read_config(name, folder) for name, folder in folders.items()}
    if settings.method == "passthrough":
        _require_layers(settings, configs, context.stage)
    shapes = _require_alike(folders, configs)
    recipe = build_recipe(settings)
    for name, folder in folders.items():
        for shard in shards_of(folder):
            require_finite(weights_in(shard), f"Cannot merge {name}", f"Run stage {name} again.")
    context.console.line(f"  {context.stage}: {settings.method} of {', '.join(members)}; template and ids of {parent}")
    LOG.info("%s: tokenizer, chat template, stop ids from %s, because it is the parent", context.stage, parent)
    merged = context.work / "merged"
    shutil.rmtree(merged, ignore_errors=True)
    with writing(context.work):
        _require_room(context.work, shapes, settings.dtype)
        _merge(recipe, folders, merged, context.config.seed, shapes)
        if configs[parent].get("tie_word_embeddings"):
            _drop_output_head(merged)
        num_parameters = _check_result(merged, None if settings.method == "passthrough" else shapes)
        with writing(context.out):
            _collect(context.out, merged, folders[parent], _merged_config(configs[parent], recipe))
            text = _describe(context.inputs, members, parent, context.config.seed)
            text += yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
            (context.out / RECIPE).write_text(text, encoding="utf-8")
            if settings.method != "passthrough":  # which takes layers apart
                carry(folders[parent], context.out)
        shutil.rmtree(merged)
    weights = list_weights(settings)
    return StageReport(metrics={"method": settings.method, "models": weights, "num_parameters": num_parameters})


def check(node: Node, settings: MergeSettings, resolved: Resolved) -> None:
    """Check what is merged, as far as it is known before a stage is made. Raises ConfigError."""
    check_stages(settings, node.inputs, node.name)
    if not settings.members():
        raise ConfigError(
            f"{node.name}.models is empty, so there is nothing to merge. Name each model with "
            f"{node.name}.models.<stage>={{}}; the stages that it may take are {', '.join(node.inputs)}."
        )
    members = settings.members()
    configs = {name: config_after(resolved, name) for name in dict.fromkeys([*members, *node.inputs])}
    _require_one_shape(
        {name: configs[name] for name in dict.fromkeys([node.parent or members[0], *members])}, node.name
    )
    if settings.method == "passthrough":
        _require_layers(settings, configs, node.name)


def _require_one_shape(configs: Mapping[str, Mapping[str, Any]], stage: str) -> None:
    """Check that no member of a merge has grown where another has not, as far as it is known. Raises ConfigError."""
    (first, expected), *others = configs.items()
    for name, found in others:
        for key in GROWN_KEYS:
            if expected and found and found.get(key) != expected.get(key):
                raise ConfigError(
                    f"{stage}: {first} and {name} cannot be merged: their {key} will be {expected.get(key)} and "
                    f"{found.get(key)}, as a stage between them changes the model's shape. Merge stages on one side of "
                    "it."
                )
        if not expected or not found or rope_of(expected).base == rope_of(found).base:
            continue
        bases = [base_of(config) or 0.0 for config in (expected, found)]
        if bases[0] != bases[1]:
            raise ConfigError(
                f"{stage}: {first} and {name} cannot be merged: the base of their RoPE will be {bases[0]:g} and "
                f"{bases[1]:g}, as a stage between them changes it (rope_theta). Merge stages on one side of it, or "
                "use a pipeline without a merge."
            )


KIND = Kind(
    name="merge", settings=MergeSettings, run=run, check=check, reads=("language model",),
    on_gpu=False, seconds=4.0,
    phrase="a merge of checkpoints", part="merge",
)  # fmt: skip


def _read_config(name: str, folder: Path) -> dict[str, Any]:
    for file in ("config.json", "tokenizer.json"):
        if not (folder / file).is_file():
            raise ContractError(f"Cannot merge {name}: its folder {folder} has no {file}. Run stage {name} again.")
    return read_config(folder)


def _require_layers(settings: MergeSettings, configs: Mapping[str, Mapping[str, Any]], stage: str) -> None:
    """Check a passthrough's layers against what is known of the checkpoints, before mergekit would fail half-way."""
    for number, piece in enumerate(settings.slices or []):
        source = piece["sources"][0]
        config, key = configs[source["model"]], f"{stage}.slices.{number}.sources.0"
        if config.get("layer_types"):
            raise ConfigError(
                f"{stage}.method: passthrough cannot stack layers of '{source['model']}': its config.json lists "
                f"`layer_types` ({config.get('model_type')} does), which mergekit 0.1.5 leaves at the old number of "
                "layers. Choose another method, or an architecture without the list, such as Llama."
            )
        layers = config.get("num_hidden_layers")
        if layers is not None and source["layer_range"][1] > layers:
            raise ConfigError(
                f"{key}.layer_range: '{source['model']}' has {layers} layers, got {list(source['layer_range'])}. "
                f"Let the range end at {layers} at most."
            )


def _require_alike(folders: Mapping[str, Path], configs: Mapping[str, dict[str, Any]]) -> Shapes:
    """Check that all checkpoints have one architecture, one set of tensors and one tokenizer; return the shapes."""
    first, *others = folders
    tied = bool(configs[first].get("tie_word_embeddings"))
    expected, tokenizer = _read_shapes(folders[first], tied), (folders[first] / "tokenizer.json").read_bytes()
    for other in others:
        found = _read_shapes(folders[other], tied)
        different = [key for key in ARCHITECTURE_KEYS if configs[first].get(key) != configs[other].get(key)]
        names = [name for name in sorted({*expected, *found}) if expected.get(name) != found.get(name)]
        if different:
            key = different[0]
            what = f"{key} in config.json is {configs[first].get(key)!r} and {configs[other].get(key)!r}"
        elif names:
            name = names[0]
            what = f"tensor {name} has the shape {expected.get(name, 'none')} and {found.get(name, 'none')}"
            what += f" ({len(names)} tensors differ)" if len(names) > 1 else ""
        elif (folders[other] / "tokenizer.json").read_bytes() != tokenizer:
            what = "their tokenizer.json differ, so one id means two tokens"
        else:
            continue
        raise ContractError(
            f"Cannot merge {first} and {other}: {what}. Merge checkpoints of one chain, whose stages all keep the "
            "base's architecture and tokenizer."
        )
    return expected


def _read_shapes(folder: Path, tied: bool) -> Shapes:
    """Return name -> shape from the headers alone; a stored copy of tied embeddings does not count."""
    shapes: Shapes = {}
    for file in sorted(folder.glob("model*.safetensors")):
        shapes |= {name: facts["shape"] for name, facts in read_header(file).items()}
    if not shapes:
        raise ContractError(f"Cannot merge: {folder} has no model.safetensors. Run that stage again.")
    if tied:
        shapes.pop(OUTPUT_HEAD, None)
    return shapes


def _require_room(folder: Path, shapes: Shapes, dtype: str) -> None:
    """Raise the system's own error before the merge rather than during it. A passthrough's size is an estimate."""
    needed = sum(math.prod(shape) for shape in shapes.values()) * (4 if dtype == "float32" else 2)
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, f"{needed / 1e6:.0f} MB needed")


def _merge(recipe: Mapping[str, Any], folders: Mapping[str, Path], out: Path, seed: int, shapes: Shapes) -> None:
    """Let mergekit write the merged weights below `out`, without log lines and without the network."""
    with quiet_mergekit():
        from mergekit.common import ModelPath, ModelReference
        from mergekit.config import MergeConfiguration
        from mergekit.merge import MergeOptions, run_merge

        def locate(value: Any, key: str = "") -> Any:
            """Put references to folders where the recipe names stages; a path as text would be parsed for + and @."""
            if key in ("model", "base_model"):
                return ModelReference(model=ModelPath(path=str(folders[value].resolve())))
            if isinstance(value, dict):
                return {name: locate(item, name) for name, item in value.items()}
            return [locate(item) for item in value] if isinstance(value, list) else value

        options = MergeOptions(
            allow_crimes=False, trust_remote_code=False, copy_tokenizer=False, write_model_card=False, quiet=True,
            device="cpu", out_shard_size=ONE_FILE, random_seed=seed,
        )  # fmt: skip
        with fresh_loaders(), listed_as_stored(shapes.keys()):
            run_merge(MergeConfiguration.model_validate(locate(dict(recipe))), str(out), options)


def _drop_output_head(merged: Path) -> None:
    """Keep tied embeddings tied where an input stored a copy of them."""
    from safetensors.torch import load_file, save_file

    if OUTPUT_HEAD not in _read_shapes(merged, tied=False):
        return
    path = merged / "model.safetensors"
    tensors = load_file(path)
    del tensors[OUTPUT_HEAD]
    save_file(tensors, path.with_suffix(".fresh"), metadata={"format": "pt"})
    path.with_suffix(".fresh").replace(path)


def _check_result(merged: Path, expected: Shapes | None) -> int:
    """Check that every tensor is there and finite, one at a time; return the number of parameters."""
    path = merged / "model.safetensors"
    found = _read_shapes(merged, tied=False)
    if expected is not None and found != expected:
        names = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        raise ContractError(
            f"The merge changed names or shapes of {len(names)} tensors, first {names[0]}: shape "
            f"{expected.get(names[0], 'none')} before, {found.get(names[0], 'none')} after. mergekit does not know "
            "all of this architecture; publish an unmerged stage, or use an architecture that it knows."
        )
    advice = "Weights cancel each other, or one is too large for the dtype. Change the merge's weights or its dtype."
    require_finite(weights_in(path), "The merge", advice)
    return sum(math.prod(shape) for shape in found.values())


def _merged_config(parent: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parent's config.json with the dtype and number of layers of the result."""
    config = {name: value for name, value in parent.items() if name != "torch_dtype"}
    config["dtype"] = recipe["out_dtype"]
    if "slices" in recipe:
        ranges = [piece["sources"][0]["layer_range"] for piece in recipe["slices"]]
        config["num_hidden_layers"] = sum(end - first for first, end in ranges)
    return config


def _collect(out: Path, merged: Path, parent: Path, config: Mapping[str, Any]) -> None:
    """Move the weights and copy the parent's files. What else mergekit wrote stays behind."""
    shutil.move(merged / "model.safetensors", out / "model.safetensors")
    for name in PARENT_FILES:
        if (parent / name).is_file():
            shutil.copyfile(parent / name, out / name)
    write_json(out / "config.json", config)


def _describe(inputs: Mapping[str, Artifact], members: list[str], parent: str, seed: int) -> str:
    """Return the recipe's head as comments: which results the stage names stand for."""
    lines = [
        f"mergekit {importlib.metadata.version('mergekit')}, seed {seed}. Each model is a stage of this chain:",
        *(f"  {name}: digest {inputs[name].digest}" for name in members),
        f"Tokenizer, chat template and generation settings: {parent}",
    ]
    return "".join(f"# {line}\n" for line in lines)
