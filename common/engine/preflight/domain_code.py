"""Code that a domain brings, and whether it may run: a folder from outside the package needs the user's consent.

Usage: `check_code(resolved)`, before anything of the domain is loaded.

Consent is `run.allow_code=<domain>` on the command line of each run. No file and no frozen plan can give it.
"""

from __future__ import annotations

from pathlib import Path

from common.config.resolve import Resolved
from common.config.stages import EvaluateSettings
from common.config.yaml import read_yaml
from common.errors import ConfigError, DataError
from common.rewards.own import FILE, own_names

# A file with only these keys lists names of tasks. All others of the harness may hold code: functions, templates
# (its Jinja is not sandboxed), files to include, metrics from the Hub.
GROUP_KEYS = frozenset({"group", "group_alias", "task", "metadata"})


def rewards_file(resolved: Resolved) -> Path:
    return resolved.domain_folder / FILE


def check_code(resolved: Resolved) -> None:
    """Raise ConfigError where a run would execute code of a domain from elsewhere without the user's consent."""
    if resolved.may_run_code or not (found := _code_of(resolved)):
        return
    raise ConfigError(
        f"This run would execute code of {resolved.domain_folder}, which is not part of the package: "
        f"{', '.join(found)}. Read it, then add run.allow_code={resolved.config.domain} to the command line."
    )


def _code_of(resolved: Resolved) -> list[str]:
    """Return what a run would execute of a domain's folder."""
    folder, stages = resolved.domain_folder, resolved.config.stages.values()
    found = [FILE] if rewards_file(resolved).is_file() and any(own_names(settings) for settings in stages) else []
    if any(isinstance(settings, EvaluateSettings) and settings.tasks for settings in stages):
        files = sorted(path for path in (folder / "eval").rglob("*") if path.suffix in (".yaml", ".yml", ".py"))
        found += [path.relative_to(folder).as_posix() for path in files if not _lists_names(path)]
    remote = resolved.origins.get("model.trust_remote_code", "")
    if resolved.config.model.trust_remote_code and remote.startswith(("domain ", "manifest ")):
        found.append("the checkpoint's own code (its files set model.trust_remote_code)")
    return found


def _lists_names(path: Path) -> bool:
    """Whether a task file is a group of tasks by name, and so holds no code."""
    try:
        value = read_yaml(path) if path.suffix != ".py" else None
    except DataError:  # a tag such as !function
        return False
    tasks = value.get("task", []) if isinstance(value, dict) and value.keys() <= GROUP_KEYS else None
    return isinstance(tasks, list) and all(isinstance(name, str) for name in tasks)
