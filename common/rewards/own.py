"""Rewards that a domain brings: the public functions of the `rewards.py` in its folder, beside those of the package.

Usage: `verifiers = verifiers_with(folder / "rewards.py")`; a settings file names the functions under `rewards:`.

    from common.rewards.verifiers import Answer

    def formula_valid(answer: Answer, *, strict: bool = True) -> float:
        ...

A function takes an answer and returns a number, from 0 to 1 where rewards are ranked. Its keyword-only parameters are
its options, checked against their annotations. Reading the file runs its code: whether that is allowed is decided in
`common.engine.preflight.domain_code`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from common.config.answering import AnsweringSettings, RewardedSettings
from common.config.base import StageSettings
from common.config.domain_code import REWARDS, read_code, runnable
from common.config.domain_functions import Shape, load_functions
from common.config.resolve import Resolved
from common.rewards.verifiers import VERIFIERS, Verifier
from common.system.files import read_bytes
from common.system.outside_code import may_run

FILE = REWARDS
SHAPE = Shape("reward", "answer: Answer", VERIFIERS, reserved=("weight", "model"))


def own_names(settings: StageSettings) -> set[str]:
    """Return the rewards that a stage's settings name and that only a domain can bring."""
    if not isinstance(settings, AnsweringSettings):
        return set()
    named = {name for name, given in settings.rewards.items() if "model" not in given}
    if isinstance(settings, RewardedSettings) and settings.watch.check is not None:
        named.add(settings.watch.check)
    return named - VERIFIERS.keys()


def verifiers_with(path: Path, shown: Path | None = None) -> Mapping[str, Verifier]:
    """Return the package's verifiers and those of a domain's file, which is run; a missing file adds none.

    `shown` is the path for messages, where `path` is a copy. Raises ConfigError where the file does not load, or a
    public function is no reward.
    """
    if not path.is_file():
        return VERIFIERS
    return {**VERIFIERS, **load_functions(path, read_bytes(path), shown or path, SHAPE)}


def verifiers_for(resolved: Resolved) -> Mapping[str, Verifier]:
    """Return the rewards that a run may name: those of the package and, where its code may run, of its domain."""
    folder = resolved.domain_folder
    if resolved.shipped or not (folder / FILE).is_file():
        return verifiers_with(folder / FILE)
    allowed = may_run(read_code(folder).code)
    return verifiers_with(runnable(folder, FILE) / FILE, folder / FILE) if allowed else VERIFIERS
