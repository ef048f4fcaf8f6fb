"""A model that a block of cleaning judges rows by: a folder with its config.json, and its tokenizer.

Usage: `require_folder(settings.checkpoint, "history.checkpoint")`; `model, tokenizer = load_reference(folder)`.

The model that a chain starts from is `common.models.source`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from common.config.schema import ModelSettings
from common.errors import ConfigError
from common.models.checkpoint import load
from common.models.settings_files import CONFIG

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def require_folder(folder: str, key: str) -> None:
    """Raise ConfigError for a folder that holds no model; `key` names the setting."""
    if not (Path(folder) / CONFIG).is_file():
        raise ConfigError(f"{key} is {folder!r}; expected the folder of a model, with its {CONFIG}.")


def load_reference(folder: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return model and tokenizer. Raises DataError for one that is not whole."""
    return load(Path(folder), ModelSettings(path=folder))
