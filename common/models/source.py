"""Where a given checkpoint comes from: a folder or the Hub, what identifies it, and how it gets here.

Usage: `folder = fetch(config.model)`; `recipe |= digest_checkpoint(config.model)`.

It reads no weights: `common.models.checkpoint` does.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from common.config.base import StageSettings
from common.config.schema import Config, ModelSettings
from common.config.stages import RewardSettings
from common.errors import ConfigError, ContractError, DataError
from common.models.facts import check_facts
from common.store.cache import known_digest

WEIGHT_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")


def is_hub_id(path: str | None) -> bool:
    """Whether a model path means the Hub: `owner/name` and no such folder here."""
    return path is not None and re.fullmatch(r"[^./~][^/]*/[^/]*", path) is not None and not Path(path).is_dir()


def taken_model(settings: StageSettings, config: Config) -> ModelSettings:
    """Return the finished reward model that a stage names by its `path` and `revision`."""
    assert isinstance(settings, RewardSettings)
    trusted = config.model.trust_remote_code
    return ModelSettings(path=settings.path, revision=settings.revision, trust_remote_code=trusted)


def fetch(settings: ModelSettings, key: str = "model") -> Path:
    """Return the folder of a checkpoint; one of the Hub is downloaded. Raises DataError that says how to get it.

    `key` names the section that gives it, for messages.
    """
    assert settings.path is not None
    if not is_hub_id(settings.path):
        folder = Path(settings.path).expanduser()
        if not folder.is_dir():
            raise DataError(f"{key}.path={settings.path}: no such folder. Give a checkpoint folder or a Hub id.")
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(settings.path, revision=settings.revision, allow_patterns=list(WEIGHT_FILES)))
    except GatedRepoError as error:
        raise DataError(
            f"{key}.path={settings.path} is gated: accept its terms on its Hub page, then set HF_TOKEN."
        ) from error
    except RepositoryNotFoundError as error:
        raise DataError(
            f"{key}.path={settings.path}: the Hub has no such model, or HF_TOKEN may not see it."
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise DataError(
            f"{key}.path={settings.path}: the Hub cannot be reached ({type(error).__name__}). profile=tiny needs no "
            "network; a folder with the checkpoint works too."
        ) from error


def digest_checkpoint(settings: ModelSettings, key: str = "model") -> dict[str, Any]:
    """Return what identifies a given checkpoint: its revision on the Hub, or the digests of its local files."""
    if settings.path is None:
        return {}
    check_given(settings, key)
    if is_hub_id(settings.path):
        return {"hub": settings.path, "revision": settings.revision}
    files = sorted(path for pattern in WEIGHT_FILES for path in fetch(settings, key).glob(pattern))
    if not files:
        raise ContractError(f"{key}.path={settings.path} holds no checkpoint files.")
    return {"files": {path.name: known_digest(path) for path in files}}


def check_local_facts(settings: ModelSettings) -> None:
    """Compare a local checkpoint with its facts; one of the Hub is compared once it is downloaded."""
    if settings.path is not None and not is_hub_id(settings.path):
        check_facts(Path(settings.path).expanduser(), settings)


def check_given(settings: ModelSettings, key: str = "model") -> None:
    """Check that a local checkpoint exists, and that one of the Hub is named by its commit.

    Raises DataError for a missing folder and ConfigError for a revision that may move.
    """
    if not is_hub_id(settings.path):
        fetch(settings, key)
    elif settings.revision is None:
        raise ConfigError(f"{key}.path={settings.path} needs {key}.revision=<commit>, so that runs can be repeated.")
    elif re.fullmatch(r"[0-9a-f]{40}", settings.revision) is None:
        raise ConfigError(
            f"{key}.revision={settings.revision} may move; give the commit that it stands for, 40 hexadecimal "
            f"digits from the history of {settings.path}."
        )
