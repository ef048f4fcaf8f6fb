"""Where a given checkpoint comes from: this machine or the Hub, what identifies it, and how it gets here.

Usage: `place = fetch(config.model)`; `recipe |= digest_checkpoint(config.model)`; `describe(config.model)`.

It reads no weights: `common.models.checkpoint` does. How a path of this machine is read is `common.models.local`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.config.base import StageSettings
from common.config.schema import Config, ModelSettings
from common.config.stages import RewardSettings
from common.errors import ConfigError, ContractError, DataError
from common.models.checkpoint import check_weights
from common.models.facts import check_facts
from common.models.gguf_file import SUFFIX
from common.models.growth.pair_configs import require_plain_folder
from common.models.licence import licence_of, stated
from common.models.local import is_local, locate, package_of, require_built
from common.models.packed import require_unpackable
from common.models.remote_code import PYTHON
from common.models.settings_files import require_decoder
from common.store.artifacts import disk_full, is_full
from common.store.cache import known_digest
from common.system.limited import Exceeded, growing, watched
from common.system.outside_code import files_below

WEIGHTS = "*.safetensors"
WEIGHT_FILES = ("*.json", WEIGHTS, "*.jinja", "*.model", "*.txt")
COMMIT = r"[0-9a-f]{40}"
PATIENCE = 10.0  # seconds for the Hub's answer
CODE_FILES = (
    "*.py",
)  # of the Hub, in folders too; read only where `trust_remote_code` says so, and then part of what a checkpoint is


def is_hub_id(path: str | None) -> bool:
    """Whether a model path means the Hub: `owner/name` and no such folder here."""
    if path is None or is_local(path):
        return False
    return re.fullmatch(r"[^./~][^/]*/[^/]*", path) is not None and not os.path.isdir(path)


def taken_model(settings: StageSettings, config: Config) -> ModelSettings:
    """Return the finished reward model that a stage names by its `path` and `revision`."""
    assert isinstance(settings, RewardSettings)
    trusted = config.model.trust_remote_code
    return ModelSettings(path=settings.path, revision=settings.revision, trust_remote_code=trusted)


def fetch(settings: ModelSettings, key: str = "model") -> Path:
    """Return a checkpoint's folder or GGUF file; one of the Hub is downloaded. Raises DataError that says what to do.

    `key` names the section that gives it, for messages.
    """
    assert settings.path is not None
    if not is_hub_id(settings.path):
        return locate(settings.path, f"{key}.path")
    return _download(settings, key, _files_of(settings))


def fetch_code(settings: ModelSettings, key: str = "model") -> Path:
    """Return the place of a checkpoint whose code can be read; of one of the Hub the small files are downloaded.

    Raises DataError and ConfigError as `fetch` and `check_given` do.
    """
    if not is_hub_id(settings.path):
        return fetch(settings, key)
    check_given(settings, key)
    return _download(settings, key, [pattern for pattern in _files_of(settings) if pattern != WEIGHTS])


def find_tokenizer(settings: ModelSettings) -> Path | None:
    """Return the place of a checkpoint whose tokenizer can be read now, weights or not; None where there is none.

    Of a checkpoint of the Hub the small files alone are downloaded, where it answers.
    """
    assert settings.path is not None
    if not is_hub_id(settings.path):
        return locate(settings.path)
    try:
        place = _download(settings, "model", [pattern for pattern in _files_of(settings) if pattern != WEIGHTS])
    except DataError:  # the stage says so
        return None
    return place if (place / "config.json").is_file() else None


def _download(settings: ModelSettings, key: str, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE

    assert settings.path is not None
    with _explained(settings, key):
        name, revision = settings.path, settings.revision
        cached = Path(HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"

        def download() -> str:
            return snapshot_download(name, revision=revision, allow_patterns=patterns)

        return Path(growing(download, lambda: _bytes_in(cached)))


def _bytes_in(folder: Path) -> int:
    """Return the bytes of a repository's files in the Hub's cache, those included that are being downloaded."""
    return sum(path.stat().st_size for path in folder.glob("blobs/*") if path.is_file())


def commit_of(settings: ModelSettings, key: str = "model") -> str:
    """Ask the Hub which commit a checkpoint's revision, or else its main branch, stands for. Raises DataError.

    Where the Hub does not answer, a ConfigError says which commit to give.
    """
    from huggingface_hub import HfApi

    assert settings.path is not None
    try:
        with _explained(settings, key):
            name, revision = settings.path, settings.revision
            found = watched(lambda: HfApi().model_info(name, revision=revision, timeout=PATIENCE), 3 * PATIENCE).sha
    except HubUnreachable as error:
        raise ConfigError(_without_commit(settings, key, f", as {error.cause}")) from error
    assert found is not None, "the Hub names a commit for every revision"
    return found


class HubUnreachable(DataError):
    """The Hub did not answer; `cause` says how."""

    def __init__(self, message: str, cause: str) -> None:
        super().__init__(message)
        self.cause = cause


@contextlib.contextmanager
def _explained(settings: ModelSettings, key: str) -> Iterator[None]:
    """Turn what the Hub's client raises into a DataError that says what to do; never the client's own text."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import (  # type: ignore[attr-defined] # HTTPError is not exported in its stubs
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )  # fmt: skip

    given = f"{key}.path={settings.path}"
    try:
        yield
    except GatedRepoError as error:
        raise DataError(f"{given} is gated: accept its terms on its Hub page, then set HF_TOKEN.") from error
    except RepositoryNotFoundError as error:
        raise DataError(f"{given}: the Hub has no such model, or HF_TOKEN may not see it.") from error
    except HFValidationError as error:
        raise DataError(f"{given} is no name that the Hub allows; expected <owner>/<name>.") from error
    except RevisionNotFoundError as error:
        raise DataError(f"{given} has no branch, tag or commit '{settings.revision}' ({key}.revision).") from error
    except Exceeded as limit:
        cause = f"the Hub did not answer within {limit}"
        raise HubUnreachable(
            f"{given}: {cause}. profile=tiny needs no network; a folder with the checkpoint works too.", cause
        ) from None
    except (HfHubHTTPError, HTTPError, LocalEntryNotFoundError, OSError) as error:
        if is_full(error):
            raise disk_full(Path(HF_HUB_CACHE)) from error
        offline = type(error).__name__ == "OfflineModeIsEnabled"
        cause = "HF_HUB_OFFLINE is set" if offline else f"the Hub cannot be reached ({type(error).__name__})"
        raise HubUnreachable(
            f"{given}: the Hub cannot be reached ({type(error).__name__}). profile=tiny needs no network; a folder "
            "with the checkpoint works too.", cause,
        ) from error  # fmt: skip


def digest_checkpoint(settings: ModelSettings, key: str = "model") -> dict[str, Any]:
    """Return what identifies a given checkpoint: its revision on the Hub, or the digests of its local files."""
    if settings.path is None:
        return {}
    check_given(settings, key)
    if is_hub_id(settings.path):
        return {"hub": settings.path, "revision": settings.revision}
    place = fetch(settings, key)
    if place.suffix == SUFFIX:
        return {"gguf": known_digest(place)}
    files = {path.name: path for pattern in WEIGHT_FILES for path in place.glob(pattern)}
    if settings.trust_remote_code:
        files |= {name: path for name, path in files_below(place) if name.endswith(PYTHON)}
    if not files:
        raise ContractError(f"{key}.path={settings.path} holds no checkpoint files.")
    return {"files": {name: known_digest(path) for name, path in sorted(files.items())}}


def _files_of(settings: ModelSettings) -> list[str]:
    """Return the patterns of the files that a checkpoint is read from."""
    return [*WEIGHT_FILES, *(CODE_FILES if settings.trust_remote_code else ())]


def check_local(settings: ModelSettings) -> None:
    """Check a checkpoint that is on this machine as `check_place` does; one of the Hub is checked once it is here."""
    if settings.path is not None and not is_hub_id(settings.path):
        check_place(locate(settings.path), settings)


def check_place(place: Path, settings: ModelSettings) -> None:
    """Check that a folder or GGUF file is whole, of a known format, a model that can train, and as its facts say.

    Raises DataError or ConfigError in one line.
    """
    check_weights(place)
    require_decoder(place)
    require_built(place, settings.trust_remote_code)
    require_plain_folder(place)
    require_unpackable(place)
    check_facts(place, settings)


def describe(settings: ModelSettings) -> dict[str, Any]:
    """Return what a report says of a given checkpoint: id, title, licence (None: unknown) and origin, without paths.

    Where its own files say so, also `base_model`: the Hub id of what it was made from.
    """
    assert settings.path is not None
    licence = licence_of(settings)
    if is_hub_id(settings.path):
        return {"id": Path(settings.path).name, "title": settings.path, "licence": licence, "origin": "hub"}
    place, package, said = locate(settings.path), package_of(settings.path), stated(settings.path)
    origin = {"id": place.name, "title": said.get("title") or "local checkpoint", "origin": "local"}
    if package is not None:
        origin |= {"id": f"{package.name} {package.version}", "origin": "package"}
    made_from = {"base_model": said["base_model"]} if "base_model" in said else {}
    return {**origin, "licence": licence, **made_from}


def check_given(settings: ModelSettings, key: str = "model") -> None:
    """Check that a local checkpoint exists, and that one of the Hub is named by its commit.

    Raises DataError for a missing folder and ConfigError for a revision that may move.
    """
    if not is_hub_id(settings.path):
        fetch(settings, key)
    elif re.fullmatch(COMMIT, settings.revision or "") is None:
        raise ConfigError(_without_commit(settings, key))


def _without_commit(settings: ModelSettings, key: str, because: str = "") -> str:
    """Say that a checkpoint of the Hub is not named by its commit."""
    if settings.revision is None:
        return (
            f"{key}.path={settings.path} needs {key}.revision=<commit>{because}. A run that reaches the Hub once finds "
            "and notes the commit by itself; a folder with the checkpoint needs none."
        )
    return (
        f"{key}.revision={settings.revision} may move{because}; give the commit that it stands for, 40 hexadecimal "
        f"digits from the history of {settings.path}."
    )
