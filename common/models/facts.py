"""The facts that a profile gives about its base model, compared with the base model itself once it is there.

Usage: `check_facts(place, config.model)`, which reads config.json or the header of a GGUF file alone, and
`check_loaded(model, tokenizer, config.model, place)` once the weights are in memory.

A plan uses facts before anything is downloaded. They are no part of a fingerprint, since the commit or the digests of
the base model already identify it. So whenever facts are used they must agree with what is there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.config.kinds import kind_of
from common.config.schema import ModelFacts, ModelSettings
from common.errors import ConfigError, DataError
from common.models.language_part import is_nested
from common.models.local import config_of, lacks_template, locate
from common.models.settings_files import read_config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


CONTEXTS = ("max_position_embeddings", "max_seq_len", "seq_length")  # keys of the longest text that a model reads
WITHOUT_LIMIT = 2048  # tokens for models that name none, as in lm-evaluation-harness
NOT_IN_CONFIG = ("parameters", "licence", "chat_template")


def check_facts(folder: Path, model: ModelSettings, *, besides: Collection[str] = ()) -> None:
    """Compare what a checkpoint says of its shapes with the facts, all but those in `besides`.

    Raises ConfigError naming file, key and values.
    """
    if model.facts is None:
        return
    for key, found in _shape(config_of(folder)).items():
        if key not in besides and found != (expected := getattr(model.facts, key)):
            path = folder / "config.json" if folder.is_dir() else folder
            raise ConfigError(_differs(str(path), key, found, expected))


def check_taken_facts(kind: str, artifact: Path, model: ModelSettings) -> None:
    """Compare the facts with the base model that a base stage took earlier. Raises ConfigError.

    That stage may have added rows to the vocabulary, also where nobody asked for new tokens.
    """
    if kind_of(kind).starts and model.path is not None:
        check_facts(artifact, model, besides=("vocab_size",))


def check_loaded(model: Any, tokenizer: PreTrainedTokenizerBase, settings: ModelSettings, folder: Path) -> None:
    """Compare what is not in config.json: the number of weights and, where it is used, the chat template.

    Raises ConfigError as `check_facts` does.
    """
    facts = settings.facts
    if facts is None:
        return
    if (found := model.num_parameters()) != facts.parameters:
        raise ConfigError(_differs(str(folder), "parameters", f"{found:,}", f"{facts.parameters:,}"))
    kind = "own" if tokenizer.chat_template else "none"
    if settings.chat_template == "own" and kind != facts.chat_template:
        raise ConfigError(_differs(str(folder), "chat_template", kind, facts.chat_template))


def known_config(model: ModelSettings) -> Mapping[str, Any]:
    """Return the settings of a model, as in a config.json, as far as this machine knows them; else nothing."""
    if model.path is None:
        return model.architecture
    try:
        return config_of(locate(model.path))
    except DataError:  # of the Hub, or the stage says what is wrong with it
        return {}


def known_folder(model: ModelSettings) -> Path | None:
    """Return the folder of a given checkpoint with its safetensors, where it is on this machine."""
    try:
        place = locate(model.path) if model.path is not None else None
    except DataError:  # of the Hub, or the stage says what is wrong with it
        return None
    return place if place is not None and place.is_dir() else None


def without_template(model: ModelSettings) -> bool:
    """Whether a given checkpoint is known to bring no chat template."""
    assert model.path is not None
    if model.facts is not None:
        return model.facts.chat_template == "none"
    try:
        return lacks_template(locate(model.path))
    except DataError:  # of the Hub
        return False


def whole_of(model: ModelSettings) -> str | None:
    """Return the kind of a given checkpoint of which a language model is a part, as far as a plan can see; else None.

    Raises DataError where its config.json cannot be right.
    """
    place = known_folder(model)
    found = read_config(place) if place is not None else {}
    return str(found.get("model_type")) if is_nested(found) else None


def _shape(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that config.json gives, with the defaults of transformers' classes for what it leaves out."""
    names = [name for name in ModelFacts.model_fields if name not in NOT_IN_CONFIG]
    found = {name: config[name] for name in names if config.get(name) is not None}
    if "num_attention_heads" in found:
        found.setdefault("num_key_value_heads", found["num_attention_heads"])
        if "hidden_size" in found:
            found.setdefault("head_dim", found["hidden_size"] // found["num_attention_heads"])
    return found


def _differs(place: str, key: str, found: Any, expected: Any) -> str:
    return (
        f"{place}: {key} is {found}, but model.facts.{key} says {expected}. Correct the profile, or give the "
        "checkpoint that it describes (model.path, model.revision); model.facts=null does without."
    )


def context_of(model: Any) -> int:
    """Return the longest text that a model reads, in tokens.

    Models with ALiBi (Bloom, MPT) and recurrent ones (Mamba) may name none; `WITHOUT_LIMIT` stands for it.
    """
    config = model.config.get_text_config()
    named = (getattr(config, key, None) for key in CONTEXTS)
    return next((value for value in named if isinstance(value, int) and value > 0), WITHOUT_LIMIT)
