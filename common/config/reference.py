"""The settings as documentation: text for one key, tables for all, and JSON schemas by which editors check YAML files.

Usage: `describe("cpt.schedule")`; `settings_page()`; `schemas()["stages"]`.

All of it comes from the settings classes. `python -m common.data.schemas` writes the files in `docs/`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from common.config.base import Frozen, StageSettings
from common.config.files import DomainFile
from common.config.kinds import kinds
from common.config.methods import Method, methods
from common.config.pipeline import Pipeline
from common.config.schema import SCALARS, SECTIONS, Config, section_of
from common.config.stage_sections import ADAPTER
from common.config.stages import WithMethods
from common.config.trl_mappings import rules_of
from common.config.trl_options import OLDER, options_of, plain_types
from common.errors import ConfigError, did_you_mean

LAYER = {"$ref": "layer.json"}  # a file beside the others, as editors find it
LAYERS = {"type": "object", "additionalProperties": LAYER}
TEXT = {"type": "string"}
METHODS = "methods"  # the key of a stage's methods
METHODS_NOTE = (
    "Methods of the papers that stages may switch on, each by name below `methods`, such as "
    "`cpt: {methods: {reptile: {}}}`. They are for the kinds base, cpt and sft."
)
DRAFT = "https://json-schema.org/draft/2020-12/schema"
PLAIN = {bool: "true or false", int: "whole number", float: "number", str: "text", type(None): "none", dict: "keys"}
LIMITS = {
    "ge": "at least {:g}", "gt": "more than {:g}", "le": "at most {:g}", "lt": "less than {:g}",
    "multiple_of": "a multiple of {:g}",
}  # fmt: skip
JSON_TYPES = {
    "bool": "boolean", "int": "integer", "float": "number", "str": "string", "dict": "object", "list": "array",
}  # fmt: skip


class Setting(NamedTuple):
    """One setting as documentation shows it."""

    key: str
    type: str
    default: str
    meaning: str


def describe(key: str) -> list[str]:
    """Return what a setting, or a section of settings, means, one line each. Raises ConfigError with the nearest key.

    A stage's keys stand below its kind, such as `cpt.schedule.warmup`, whatever the stages of a pipeline are called.
    """
    parts = _parts()
    name, *rest = key.split(".")
    if key in SCALARS:
        return _text([_setting(key, Config.model_fields[key])])
    if name not in parts:
        raise ConfigError(f"{key}: no section or stage kind of that name.{did_you_mean(name, [*parts, *SCALARS])}")
    settings = list(settings_of(parts[name], name))
    own = [setting for setting in settings if f"{setting.key}.".startswith(f"{key}.")]
    if own:
        return [*([] if own[0].key == key else [f"{key}: {_heading(parts[name], rest)}"]), *_text(own)]
    trainer = getattr(parts[name], "trainer", "")
    if rest[0] == "train" and trainer:
        return _describe_option(key, ".".join(rest[1:]), trainer)
    if rest[0] == METHODS and issubclass(parts[name], WithMethods):
        return _describe_method(key, name, rest[1])
    above, known = name, set[str]()
    for part in rest:
        known = {s.key.removeprefix(f"{above}.").partition(".")[0] for s in settings if s.key.startswith(f"{above}.")}
        if part not in known:
            break
        above = f"{above}.{part}"
    if not known:
        raise ConfigError(f"{key}: {above} has no keys that are known here; see {above}.")
    raise ConfigError(f"{above}.{part}: unknown key.{did_you_mean(part, known)}")


def settings_page() -> str:
    """Return `docs/settings.md`: every setting of every section and stage kind in tables."""
    lines = [
        "# Settings",
        "",
        "Written from the settings classes by `python -m common.data.schemas`. `just config describe=cpt.schedule` "
        "shows one of these. Stages of a pipeline take the settings of their kind; the options of a `train:` block are "
        "those of the TRL class that is named.",
        "",
        "## All runs",
        "",
        *table_of(_setting(name, Config.model_fields[name]) for name in SCALARS),
    ]
    for name, model in _parts().items():
        heading = name if name in SECTIONS else f"Stage kind {name}"
        trainer = getattr(model, "trainer", "")
        options = f" `train` holds options of TRL's {trainer}." if trainer else ""
        lines += ["", f"## {heading}", "", summary_of(model) + options, "", *table_of(settings_of(model, name))]
    lines += ["", "## Methods", "", METHODS_NOTE]
    for method in methods().values():
        settings = settings_of(method.settings, f"{METHODS}.{method.name}")
        lines += ["", f"### {method.name}", "", _headline(method), "", *table_of(settings)]
    return "\n".join(lines) + "\n"


def _headline(method: Method) -> str:
    """Return what a method does, its place and its paper, as a paragraph."""
    ours = f" Ours: {method.ours}." if method.ours else ""
    return f"{method.phrase[0].upper()}{method.phrase[1:]}. Place: {method.place}. Source: {method.paper}.{ours}"


def _describe_method(key: str, stage: str, name: str) -> list[str]:
    """Return what a method, or one of its settings, means. Raises ConfigError with the nearest one."""
    if name not in methods():
        raise ConfigError(f"{key}: there is no such method.{did_you_mean(name, methods())}")
    method, prefix = methods()[name], f"{stage}.{METHODS}.{name}"
    settings = list(settings_of(method.settings, prefix))
    own = [setting for setting in settings if f"{setting.key}.".startswith(f"{key}.")]
    if not own:
        known = [setting.key.removeprefix(f"{prefix}.") for setting in settings]
        raise ConfigError(f"{key}: unknown key.{did_you_mean(key.removeprefix(f'{prefix}.'), known)}")
    return [*([f"{key}: {_headline(method)}"] if key == prefix else []), *_text(own)]


def schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON schemas of a layer, and of what holds layers: `stages.yaml`, pipelines and profiles; by name."""
    pipeline = schema_of(Pipeline, {"settings": LAYER})
    del pipeline["properties"]["name"]  # it is the file's name
    pipeline["required"].remove("name")
    # Exams, card and publishing come by themselves.
    made = [name for name, kind in kinds().items() if kind.makes not in ("rows", "report")]
    pipeline["$defs"]["StageSpec"]["properties"]["kind"]["enum"] = made
    stages = schema_of(DomainFile, {"all": LAYER, "checkpoint": LAYER, "profiles": LAYERS})
    layer = _layer()
    # A profile is a layer with two keys of its own, which its `additionalProperties` would take for stages.
    profile = {key: value for key, value in layer.items() if key != "$defs"}
    profile["properties"] = {**layer["properties"], "description": TEXT, "pipeline": TEXT}
    profile = json.loads(json.dumps(profile).replace('"#/', '"layer.json#/'))
    return {"layer": layer, "stages": stages, "pipeline": pipeline, "profile": profile}


def schema_of(model: type[BaseModel], replaced: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's JSON schema, with the given schemas for some of its keys."""
    made = {"$schema": DRAFT, **model.model_json_schema()}
    for key, schema in replaced.items():
        made["properties"][key] = {**schema, "description": model.model_fields[key].description}
    return made


def _layer() -> dict[str, Any]:
    """Return the schema of a layer: sections, kinds and stages, whose names are open, with any part of their keys."""
    found: dict[str, Any] = {}
    nested: dict[str, Any] = {}
    for name, model in _parts().items():
        schema = found[name] = _partial(model.model_json_schema())
        nested |= schema.pop("$defs", {})
        if trainer := getattr(model, "trainer", ""):
            schema["properties"]["train"] = _train_schema(trainer, model)
        if issubclass(model, WithMethods):
            schema["properties"]["methods"] = {"$ref": f"#/$defs/{METHODS}"}
        if getattr(model, "adapts", False):
            what = "settings that hold only where the stage trains an adapter"
            schema["properties"][ADAPTER] = {"$ref": f"#/$defs/{name}", "description": what}
    found |= _methods_schema()
    fields = {key: _partial(Config.model_json_schema()["properties"][key]) for key in SCALARS}
    return {
        "$schema": DRAFT,
        "type": "object",
        "properties": {**fields, **{name: {"$ref": f"#/$defs/{name}"} for name in _parts()}},
        "additionalProperties": {"type": "object", "description": "settings of the stage of this name"},
        "$defs": {**found, **nested},
    }


def _methods_schema() -> dict[str, Any]:
    """Return the schemas of the methods that a stage may have, and of the settings of each."""
    each = {f"{METHODS}.{name}": _partial(method.settings.model_json_schema()) for name, method in methods().items()}
    properties = {
        name: {
            "anyOf": [{"$ref": f"#/$defs/{METHODS}.{name}"}, {"type": ["boolean", "null"]}],
            "description": method.phrase,
        }
        for name, method in methods().items()
    }
    return {METHODS: {"type": "object", "properties": properties, "additionalProperties": False}, **each}


def _train_schema(trainer: str, settings: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of a `train:` block: what TRL has, and older names that are taken as settings of ours."""
    older = {name: kind for name, kind in OLDER.items() if name in rules_of(settings)}
    options = {name: _option_schema(kind) for name, kind in {**older, **options_of(trainer)}.items()}
    return {
        "type": "object",
        "description": f"options of TRL's {trainer}, by their own names",
        "properties": dict(sorted(options.items())),
        "additionalProperties": False,
    }


def _option_schema(annotation: str) -> dict[str, Any]:
    plain = plain_types(annotation)
    return {"type": [*(JSON_TYPES[name] for name in plain), "null"]} if plain else {}


def _partial(schema: Any) -> Any:
    """Return a schema without required keys: a layer says some of them, others say the rest."""
    if isinstance(schema, dict):
        return {key: _partial(value) for key, value in schema.items() if key != "required"}
    return [_partial(item) for item in schema] if isinstance(schema, list) else schema


def settings_of(model: type[BaseModel], prefix: str) -> Iterator[Setting]:
    """Yield the settings of a class, those of nested classes below their key."""
    for name, field in model.model_fields.items():
        inner = _model_of(field.annotation)
        if inner is None:
            yield _setting(f"{prefix}.{name}", field)
            continue
        default = field.default if isinstance(field.default, BaseModel) else None
        for setting in settings_of(inner, f"{prefix}.{name}"):
            last = setting.key.rpartition(".")[2]
            yield setting._replace(default=_shown(getattr(default, last))) if hasattr(default, last) else setting


def _setting(key: str, field: FieldInfo) -> Setting:
    limits = [
        text.format(getattr(item, name))
        for item in field.metadata
        for name, text in LIMITS.items()
        if hasattr(item, name)
    ]
    default = "required" if field.is_required() else _shown(field.get_default(call_default_factory=True))
    return Setting(key, ", ".join([_type_text(field.annotation), *limits]), default, field.description or "")


def _type_text(annotation: Any) -> str:
    origin, inner = get_origin(annotation), [arg for arg in get_args(annotation) if arg is not Ellipsis]
    if origin is Literal:
        return ", ".join(map(str, inner))
    if origin is Annotated:
        return _type_text(inner[0])
    if origin in (tuple, list):
        return f"list of {_type_text(inner[0])}"
    if origin is dict or annotation is dict:
        return "keys"
    if inner:
        return " or ".join(_type_text(arg) for arg in inner)
    return PLAIN.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """Return the settings class that a field holds, also where it may be none."""
    for item in (annotation, *get_args(annotation)):
        if isinstance(item, type) and issubclass(item, Frozen) and item is not StageSettings:
            return item
    return None


def _shown(value: Any) -> str:
    if value is None or value in ({}, (), ""):
        return "none"
    if isinstance(value, str) and (value != value.strip() or "<" in value):
        return f"`{json.dumps(value, ensure_ascii=False)}`"  # blanks and line ends are seen, and no tag is read as one
    return str(value).lower() if isinstance(value, bool) else str(value)


def module_text(model: type[BaseModel]) -> str:
    """Return the docstring of a class's module, each paragraph in one line."""
    text = sys.modules[model.__module__].__doc__ or ""
    return "\n\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))


def summary_of(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").strip().split("\n\n")[0].split())


def _heading(model: type[BaseModel], path: Sequence[str]) -> str:
    """Return what a section, or a nested one below it, is."""
    text = summary_of(model)
    for part in path:
        text = model.model_fields[part].description or ""
        model = _model_of(model.model_fields[part].annotation) or model
    return text


def _text(settings: Any) -> list[str]:
    return [f"{s.key} ({s.type}; default: {s.default}): {s.meaning}" for s in settings]


def table_of(settings: Any) -> list[str]:
    rows = ["| " + " | ".join(part.replace("|", "\\|") for part in (f"`{s.key}`", *s[1:])) + " |" for s in settings]
    if not rows:
        return ["No settings."]
    return ["| setting | type | default | meaning |", "|---|---|---|---|", *rows]


def _describe_option(key: str, option: str, trainer: str) -> list[str]:
    known = options_of(trainer)
    if option not in known:
        raise ConfigError(f"{key}: {trainer} of TRL has no option '{option}'.{did_you_mean(option, known)}")
    return [f"{key} ({known[option]}): option of TRL's {trainer}; its documentation says what it does."]


def _parts() -> dict[str, type[BaseModel]]:
    """Return the settings class of each section and of each stage kind."""
    sections: dict[str, type[BaseModel]] = {name: section_of(name) for name in SECTIONS}
    return {**sections, **{name: kind.settings for name, kind in kinds().items()}}
