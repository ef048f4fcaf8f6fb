"""Publish: the finished model with its card, as a version in the local registry or as one commit on the Hub.

Usage: `run(context)`; `context.inputs["card"]` is the card, which says which of the other inputs is published.

Locally a version is `models/<domain>/v<n>/`, written under a temporary name and then renamed. `latest` points at the
newest of the run that it belongs to; a version of another run moves it only where `publish.latest` asks.
If a version already has the same model and card, no new one is made. Files are published unchanged.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from common.config.kinds import Kind
from common.config.names import is_name
from common.config.stages import PublishSettings
from common.errors import ConfigError, DataError, did_you_mean
from common.report.bundle import Files, copy_files, difference, digests, matches, select_files
from common.stage import StageContext, StageReport
from common.store.artifacts import Artifact, write_json, writing
from common.store.manifest import read_mapping
from common.store.ownership import NEW_VERSION
from common.store.runs import point
from common.store.verify import PUBLISHED

if TYPE_CHECKING:
    from huggingface_hub import HfApi

log = logging.getLogger(__name__)

CARD = "card"
LATEST = "latest"
VERSION = re.compile(r"v([1-9][0-9]{0,8})")
HUB = "hub:"


def hub_repository(to: str) -> str | None:
    """Return the <owner>/<name> that the setting `to` names; None where it is local or none. Raises ConfigError."""
    if to in ("local", "none"):
        return None
    owner, slash, name = to.removeprefix(HUB).partition("/")
    if to.startswith(HUB) and slash and is_name(owner) and is_name(name.removeprefix("_")):
        return f"{owner}/{name}"
    raise ConfigError(
        f"publish.to is '{to}', expected local, none or hub:<owner>/<name>, such as hub:acme/med-1b."
        + (did_you_mean(to, ("local", "none")) if ":" not in to else "")
    )


def run(context: StageContext) -> StageReport:
    """Publish and write `published.json` into `context.out`."""
    settings, latest = cast(PublishSettings, context.settings), {}
    if repo := hub_repository(settings.to):
        if context.inputs[CARD].manifest["metrics"].get("licence") == "unknown":
            raise ConfigError(
                f"publish.to={settings.to}: the licence of the base model or of its data is not known; the card says "
                "whose. Set model.licence=<id>, or licence: <id> beside the source in the manifest, and run again."
            )
        published = publish_to_hub(context, repo, private=settings.private, api=hub_api(repo))
    elif settings.to == "local":
        published = publish_locally(context)
        latest = {"latest": point_latest(context, published["version"])}
    else:
        published = {"to": "none", "version": None, "path": None, "files": {}}
    write_json(context.out / "published.json", published)
    return StageReport(metrics={key: published[key] for key in ("to", "version", "path")} | latest)


KIND = Kind(
    name="publish", settings=PublishSettings, run=run, check=lambda node, settings, _: hub_repository(settings.to),
    makes="report", on_gpu=False, seconds=1.0,
)  # fmt: skip


def chosen_model(context: StageContext) -> Artifact:
    """Return the model that the card describes: the stage that the pipeline names, or the one chosen in its place."""
    chosen = context.inputs[CARD].manifest["metrics"].get("published", context.parent)
    if chosen not in context.inputs:
        raise DataError(f"The card's manifest says that '{chosen}' is published, and there is no such stage before it.")
    return context.inputs[chosen]


def publish_locally(context: StageContext) -> dict[str, Any]:
    """Make the next version below `context.models`, or use the one that has the same model and card."""
    model, card = chosen_model(context), context.inputs[CARD]
    files = select_files(model, card)
    folder = context.models / context.config.domain
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        version = _same_version(folder, _identity(model, card), files)
        if version:
            log.info("publish: %s already has this model and card", version)
        else:
            version = _new_version(context, folder, files)
    path = f"{folder.name}/{version}"
    return {"to": "local", "version": version, "path": f"{context.models.name}/{path}", "files": digests(files)}


def publish_to_hub(context: StageContext, repo: str, *, private: bool, api: HfApi) -> dict[str, Any]:
    """Put the folder into a Hub repository in one commit, card and weights together.

    Raises ConfigError when the token may not write or the repository is public against the settings, DataError when
    the Hub cannot be reached. The folder stays in `context.work` in both cases.
    """
    # HTTPError is that of the HTTP library, which differs between releases of huggingface_hub.
    from huggingface_hub.errors import HFValidationError, HTTPError  # type: ignore[attr-defined] # not exported in its stubs

    model, card = chosen_model(context), context.inputs[CARD]
    files = select_files(model, card)
    folder = context.work / "upload"
    with writing(context.work):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        copy_files(files, folder)
    try:
        commit = _upload(api, repo, folder, private=private, message=f"{context.config.domain}: {model.fingerprint}")
    except HFValidationError as error:
        raise ConfigError(f"publish.to names '{repo}', which the Hub does not allow: {error}") from error
    except (HTTPError, OSError, RuntimeError) as error:  # hf_xet raises RuntimeError
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise ConfigError(
                f"The Hub refused to write to '{repo}' ({status}). Log in with a token that may write there: "
                f"`hf auth login`, or set HF_TOKEN. {_kept(folder)}"
            ) from error
        raise DataError(
            f"Publishing to '{repo}' failed: {error.__class__.__name__}: {error}. {_kept(folder)} "
            f"Run the same command again to retry, or `hf upload {repo} {folder}`."
        ) from error
    return {"to": f"hub:{repo}", "version": commit, "path": repo, "files": digests(files)}


def hub_api(repo: str) -> HfApi:
    """Return the Hub client with the user's own token. Raises ConfigError where nobody is logged in."""
    from huggingface_hub import HfApi, get_token

    token = get_token()
    if token is None:
        raise ConfigError(
            f"Publishing to 'hub:{repo}' needs a Hub token and there is none. Log in with `hf auth login`, or set "
            "HF_TOKEN; a token with the permission to write is made at https://huggingface.co/settings/tokens."
        )
    return HfApi(token=token)


def _identity(model: Artifact, card: Artifact) -> dict[str, Any]:
    facts = {"stage": model.stage, "fingerprint": model.fingerprint, "digest": model.digest}
    return {"model": facts, "card": {"fingerprint": card.fingerprint, "digest": card.digest}}


def _versions(folder: Path) -> list[int]:
    return sorted(int(match[1]) for match in map(VERSION.fullmatch, os.listdir(folder)) if match)


def _same_version(folder: Path, identity: Mapping[str, Any], files: Files) -> str | None:
    """Return the newest complete version with the same model digest and card digest."""
    for number in reversed(_versions(folder)):
        record = read_mapping(folder / f"v{number}" / PUBLISHED)  # empty for a folder of other origin
        same = all(record.get(part, {}).get("digest") == identity[part]["digest"] for part in ("model", "card"))
        if same and not any(difference(folder / f"v{number}" / name, facts) for name, (_, facts) in files.items()):
            return f"v{number}"
    return None


def _new_version(context: StageContext, folder: Path, files: Files) -> str:
    """Copy into a hidden folder next to the versions, then rename it to the next free number."""
    model, card = chosen_model(context), context.inputs[CARD]
    fresh = folder / f"{NEW_VERSION}{context.work.name}"  # the next attempt of this stage begins it again
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        copy_files(files, fresh)
        while True:
            version = f"v{max(_versions(folder), default=0) + 1}"
            names = {"domain": context.config.domain, "version": version, "run": context.run}
            write_json(fresh / PUBLISHED, {**names, **_identity(model, card), "files": digests(files)})
            try:
                os.rename(fresh, folder / version)
            except OSError:
                if not (folder / version).exists():
                    raise
                continue  # another run took this number since it was looked up
            return version
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def point_latest(context: StageContext, version: str) -> str:
    """Point the relative link `latest` at a version, in one step, unless it belongs to another run. Return its target.

    A link that leads nowhere, and a version that does not say whose it is, belong to nobody.
    """
    folder = context.models / context.config.domain
    settings, link = cast(PublishSettings, context.settings), folder / LATEST
    owner = read_mapping(link / PUBLISHED).get("run")
    if owner not in (None, "", context.run) and not settings.latest:
        version = os.readlink(link) if link.is_symlink() else LATEST
        return version if VERSION.fullmatch(version) else LATEST
    with writing(folder):
        point(link, version)
    return version


def _upload(api: HfApi, repo: str, folder: Path, *, private: bool, message: str) -> str:
    """Create the repository where needed and commit the folder; return the commit's id.

    It is one `create_commit`: `upload_folder` may split a slow upload into several commits, and a reader between two
    of them would see a card without its weights. Weights of an earlier upload that are not replaced are deleted, or
    `from_pretrained` could load them.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    api.create_repo(repo, repo_type="model", private=private, exist_ok=True)
    info = api.model_info(repo)
    if private and not info.private:
        raise ConfigError(
            f"The repository '{repo}' exists and is public, and publish.private is true. Publish under another name, "
            "make it private on the Hub, or set publish.private=false."
        )
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    old = [sibling.rfilename for sibling in info.siblings or [] if sibling.rfilename not in names]
    stale = [name for name in old if matches(name, ("*.safetensors", "*.safetensors.index.json"))]
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(folder / name)) for name in names),
        *(CommitOperationDelete(path_in_repo=name) for name in stale),
    ]
    return str(api.create_commit(repo, operations, commit_message=message, repo_type="model").oid)


def _kept(folder: Path) -> str:
    return f"Nothing is lost: the model and its card are in the store, the folder to upload is {folder}."
