"""Code that is not part of the package and that a run would execute: it needs the user's consent to its very bytes.

Usage: `check_code(resolved)`, before anything of the domain or of its checkpoint is loaded.

Consent is `run.allow_code=<domain>` on the command line. It is remembered for the digest of the code, in the user's
own folder (`common.system.consents`); other code asks again. No file and no frozen plan can give it: for a frozen plan,
which may name another folder than its reader thinks, the command line gives the digest too, as for the jobs of a run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config.base import StageSettings
from common.config.domain_code import EXAMS, REWARDS, SCORERS, read_code, runnable
from common.config.kinds import kind_of
from common.config.node import Node
from common.config.overrides import ALLOW_CODE, ANY
from common.config.resolve import Resolved
from common.config.schema import ModelSettings
from common.config.stages import EvaluateSettings, RewardSettings
from common.data.scorers import scorer_names
from common.errors import ConfigError
from common.models.remote_code import code_of
from common.models.source import fetch_code, taken_model
from common.rewards.own import own_names
from common.system import consents
from common.system.outside_code import allow, digest_of, digests_of, require

log = logging.getLogger(__name__)
SHORT = 12  # digits of a digest that people compare
MOST_SHOWN = 12  # files in a message


@dataclass(frozen=True)
class OutsideCode:
    """The files of one origin, and their bytes by name."""

    whose: str  # for messages
    prefix: str  # of the names, as consents have them
    files: Mapping[str, bytes]


def check_code(resolved: Resolved) -> None:
    """Let this process run the code from outside the package that a run needs. Raises ConfigError without consent."""
    found = list(_code_of_run(resolved))
    if not found:
        return
    domain, digests, digest = resolved.config.domain, *_digests(found)
    given, frozen = resolved.consent, not resolved.layers
    known = consents.stored(domain)
    if given == digest or (given == ANY and not frozen):
        if not frozen and digest not in [consent.digest for consent in known]:
            _remember(domain, digests, known)
    elif given not in (None, ANY) or digest not in [consent.digest for consent in known]:
        raise ConfigError(_refusal(resolved, found, digest, known))
    allow(_named(found))


def code_lines(resolved: Resolved) -> Iterator[str]:
    """Yield what a plan says of code from outside the package, once it may run."""
    job = granted(resolved)
    for member in resolved.members.values() or (resolved,):
        if found := list(_code_of_run(member)):
            _, digest = _digests(found)
            given = next((x.given for x in consents.stored(member.config.domain) if x.digest == digest), "")
            when = f", remembered since {given} in {consents.folder()}" if given else ""
            yield f"Code from outside the package that may run: {_listed(found)}"
            yield f"You allowed it{when}; jobs on other machines need {job}"


def granted(resolved: Resolved) -> str | None:
    """Return the override by which a job may run the code that this process may, and no other; None where none runs.

    Of a sequence it allows the code of each domain that has some.
    """
    grants = []
    for member in resolved.members.values() or (resolved,):
        if found := list(_code_of_run(member)):
            require(_named(found), "This run")
            grants.append(f"{member.config.domain}@{_digests(found)[1]}")
    return f"{ALLOW_CODE}={','.join(grants)}" if grants else None


def code_of_stage(node: Node, resolved: Resolved) -> dict[str, Any]:
    """Return the digests of the code from outside the package that a stage executes, by file; {} where none is."""
    settings, config = resolved.config.stages[node.name], resolved.config
    used = list(_code_of_domain(resolved, [settings]))
    if kind_of(node.kind).holds_model:
        used += _code_of_checkpoints(config.model, {node.name: settings}, resolved)
    files, digest = _digests(used)
    return {"digest": digest, "files": files} if files else {}


def rewards_file(resolved: Resolved, settings: StageSettings) -> Path:
    """Return the domain's rewards, from where their code may run if the stage names any."""
    own = bool(own_names(settings)) and not resolved.shipped and (resolved.domain_folder / REWARDS).is_file()
    return (runnable(resolved.domain_folder, REWARDS) if own else resolved.domain_folder) / REWARDS


def exam_folders(folders: tuple[Path, ...], resolved: Resolved) -> tuple[Path, ...]:
    """Return folders of exam files, the domain's as it may be run."""
    own = resolved.domain_folder / EXAMS
    if resolved.shipped or own not in folders:
        return folders
    copied = runnable(resolved.domain_folder, EXAMS) / EXAMS
    return tuple(copied if folder == own else folder for folder in folders if folder != own or copied.is_dir())


def _code_of_run(resolved: Resolved) -> Iterator[OutsideCode]:
    stages = resolved.config.stages
    yield from _code_of_domain(resolved, list(stages.values()))
    yield from _code_of_checkpoints(resolved.config.model, stages, resolved)


def _code_of_domain(resolved: Resolved, stages: list[StageSettings]) -> Iterator[OutsideCode]:
    """Yield the code of a domain's folder, all of it, where some stages would execute any."""
    examined = any(isinstance(settings, EvaluateSettings) and settings.tasks for settings in stages)
    scored = any(map(scorer_names, stages))
    if resolved.shipped or not (examined or scored or any(map(own_names, stages))):
        return
    code = read_code(resolved.domain_folder).code
    rewarded = any(map(own_names, stages)) and REWARDS in code
    if rewarded or (scored and SCORERS in code) or (examined and any(name.startswith(EXAMS) for name in code)):
        yield OutsideCode(f"of {resolved.domain_folder}", "", code)


def _code_of_checkpoints(
    model: ModelSettings, stages: Mapping[str, StageSettings], resolved: Resolved
) -> Iterator[OutsideCode]:
    """Yield the code of the checkpoint, and of reward models, where it is trusted."""
    if not model.trust_remote_code:
        return
    given = {"model": model} if model.path is not None else {}
    for name, settings in stages.items():
        if isinstance(settings, RewardSettings) and settings.path is not None:
            given[name] = taken_model(settings, resolved.config)
    for name, taken in given.items():
        if files := code_of(fetch_code(taken, name)):
            yield OutsideCode(f"of the checkpoint {taken.path}", f"{name}/", files)


def _named(found: Any) -> dict[str, bytes]:
    return {f"{code.prefix}{name}": data for code in found for name, data in code.files.items()}


def _digests(found: list[OutsideCode]) -> tuple[dict[str, str], str]:
    """Return the digests of all files by name, and the one of them together."""
    digests = digests_of(_named(found))
    return digests, digest_of(digests)


def _listed(found: list[OutsideCode]) -> str:
    """Return all files by their origins, and the short form of their digest."""
    parts = []
    for code in found:
        names = sorted(code.files)
        more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
        parts.append(f"{', '.join(names[:MOST_SHOWN])}{more} {code.whose}")
    return f"{'; '.join(parts)} (digest {_digests(found)[1][:SHORT]})"


def _refusal(resolved: Resolved, found: list[OutsideCode], digest: str, known: list[consents.Consent]) -> str:
    domain, given = resolved.config.domain, resolved.consent
    text = f"This run would execute code that is not part of the package: {_listed(found)}."
    if known:
        text += f" {_changes(known[0], _digests(found)[0])}"
    if given not in (None, ANY):
        text += f" {ALLOW_CODE}={domain}@{str(given)[:SHORT]}… allows other code."
    if given == ANY:
        text += " A frozen plan may name another folder than you think, so the domain's name alone does not allow it."
    whole = f"{ALLOW_CODE}={domain}" if resolved.layers else f"{ALLOW_CODE}={domain}@{digest}"
    return f"{text} Read it, then add {whole} to the command line."


def _changes(before: consents.Consent, digests: Mapping[str, str]) -> str:
    changed = before.differences(digests)
    more = f" and {len(changed) - MOST_SHOWN} more" if len(changed) > MOST_SHOWN else ""
    return f"It is not what you allowed on {before.given}: {', '.join(changed[:MOST_SHOWN])}{more}."


def _remember(domain: str, digests: Mapping[str, str], known: list[consents.Consent]) -> None:
    """Store a consent, and say what is other than before; where it cannot be stored, it holds for this run."""
    if known:
        log.warning("run.allow_code=%s: %s It is allowed from now on.", domain, _changes(known[0], digests))
    try:
        consents.remember(domain, digests)
    except (OSError, RuntimeError) as error:
        log.warning("run.allow_code=%s holds for this run alone: it could not be stored: %s", domain, error)
