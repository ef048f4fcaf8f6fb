"""What a profile says of its checkpoint, compared with the checkpoint itself as soon as that is there.

Usage: `check_facts(folder, config.model)`, which reads config.json alone, and `check_loaded(model, tokenizer,
config.model, folder)` once the weights are in memory.

Facts are what a plan reckons with before anything is downloaded. They are no part of a fingerprint, as the commit or
the digests of the checkpoint already say what it is; so each time they are used they must agree with what is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.config.kinds import kind_of
from common.config.schema import ModelFacts, ModelSettings
from common.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_facts(folder: Path, model: ModelSettings) -> None:
    """Compare a folder's config.json with the facts. Raises ConfigError naming file, key, found and expected."""
    path = folder / "config.json"
    if model.facts is None or not path.is_file():
        return
    told, facts = _told(json.loads(path.read_text(encoding="utf-8"))), model.facts
    for key, expected in {
        "model_type": facts.model_type,
        "vocab_size": facts.vocab_size,
        "hidden_size": facts.hidden_size,
        "intermediate_size": facts.intermediate_size,
        "num_hidden_layers": facts.num_hidden_layers,
        "num_attention_heads": facts.num_attention_heads,
        "num_key_value_heads": facts.num_key_value_heads,
        "head_dim": facts.head_dim,
        "tie_word_embeddings": facts.tie_word_embeddings,
        "max_position_embeddings": facts.max_position_embeddings,
    }.items():
        if key in told and told[key] != expected:
            raise ConfigError(_differs(str(path), key, told[key], expected))


def check_taken_facts(kind: str, artifact: Path, model: ModelSettings) -> None:
    """Compare the facts with the checkpoint that a base stage took earlier, where one is there. Raises ConfigError."""
    if kind_of(kind).starts and model.path is not None and not model.new_tokens:  # those may have added rows
        check_facts(artifact, model)


def check_loaded(model: Any, tokenizer: PreTrainedTokenizerBase, settings: ModelSettings, folder: Path) -> None:
    """Compare what config.json does not tell: the number of weights and, where it is used, the chat template.

    Raises ConfigError as `check_facts` does.
    """
    facts = settings.facts
    if facts is None:
        return
    if (found := model.num_parameters()) != facts.parameters:
        raise ConfigError(_differs(str(folder), "parameters", f"{found:,}", f"{facts.parameters:,}"))
    if settings.chat_template == "own" and (kind := template_kind(tokenizer)) != facts.chat_template:
        raise ConfigError(_differs(str(folder), "chat_template", kind, facts.chat_template))


def template_kind(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return marked, known or none, as ModelFacts says; `unknown` for a template without markers that TRL lacks."""
    from trl.chat_template_utils import get_training_chat_template

    if not tokenizer.chat_template:
        return "none"
    if "generation %}" in tokenizer.chat_template:
        return "marked"
    try:
        get_training_chat_template(tokenizer)
    except ValueError:
        return "unknown"
    return "known"


def context_of(model: ModelSettings) -> int | None:
    """Return the longest row in tokens that a model can read, or None where nothing says."""
    if model.facts is not None:
        return model.facts.max_position_embeddings
    length = model.architecture.get("max_position_embeddings") if model.path is None else None
    return None if length is None else int(length)


def _told(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what config.json says, with what follows where it is silent, as in transformers' classes."""
    told = {key: config[key] for key in ModelFacts.model_fields if config.get(key) is not None}
    if "num_attention_heads" in told:
        told.setdefault("num_key_value_heads", told["num_attention_heads"])
        if "hidden_size" in told:
            told.setdefault("head_dim", told["hidden_size"] // told["num_attention_heads"])
    return told


def _differs(place: str, key: str, found: Any, expected: Any) -> str:
    return (
        f"{place}: {key} is {found}, but model.facts.{key} says {expected}. Correct the profile, or give the "
        "checkpoint that it describes (model.path, model.revision); model.facts=null does without."
    )
