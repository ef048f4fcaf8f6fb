"""Code that a domain brings, and whether it may run: a folder from outside the package needs the user's consent.

Usage: `check_code(resolved)`, before anything of the domain is loaded.

Consent is `run.allow_code=<domain>` on the command line of each run. No file and no frozen plan can give it.
"""

from __future__ import annotations

from pathlib import Path

from common.config.build import COMMAND_LINE
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
    """Raise ConfigError where a run would execute code from outside the package without the user's consent."""
    own = [] if resolved.may_run_code else _code_of(resolved)
    found = [*own, *_code_of_checkpoint(resolved)]
    if resolved.code_allowed or not found:
        return
    whose = f"of {resolved.domain_folder}, which is not part of the package" if own else "from outside the package"
    raise ConfigError(
        f"This run would execute code {whose}: {', '.join(found)}. Read it, then add "
        f"run.allow_code={resolved.config.domain} to the command line."
    )


def _code_of(resolved: Resolved) -> list[str]:
    """Return what a run would execute of a domain's folder."""
    folder, stages = resolved.domain_folder, resolved.config.stages.values()
    found = [FILE] if rewards_file(resolved).is_file() and any(own_names(settings) for settings in stages) else []
    if any(isinstance(settings, EvaluateSettings) and settings.tasks for settings in stages):
        files = sorted(path for path in (folder / "eval").rglob("*") if path.suffix in (".yaml", ".yml", ".py"))
        found += [path.relative_to(folder).as_posix() for path in files if not _lists_names(path)]
    return found


def _code_of_checkpoint(resolved: Resolved) -> list[str]:
    """Return that a checkpoint's own code would run, unless the user or a shipped file says so.

    What a frozen plan says of itself does not count: it may come from anyone.
    """
    origin = resolved.origins.get("model.trust_remote_code", "") if resolved.layers else "frozen plan"
    shipped = origin.startswith(("profile ", "pipeline ")) or (origin.startswith("domain ") and resolved.shipped)
    if not resolved.config.model.trust_remote_code or origin == COMMAND_LINE or shipped:
        return []
    return [f"the checkpoint's own (model.trust_remote_code is set by: {origin})"]


def _lists_names(path: Path) -> bool:
    """Whether a task file is a group of tasks by name, and so holds no code."""
    try:
        value = read_yaml(path) if path.suffix != ".py" else None
    except DataError:  # a tag such as !function
        return False
    tasks = value.get("task", []) if isinstance(value, dict) and value.keys() <= GROUP_KEYS else None
    return isinstance(tasks, list) and all(isinstance(name, str) for name in tasks)
