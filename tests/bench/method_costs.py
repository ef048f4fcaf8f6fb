"""What a step costs with each method on: CPU time against the plain counterpart in turns, and memory.

Usage: `for cost in measure(arms, {}): print(cost.ratio)`.

Each loop is the product's own stage, behind stages that read one batch. Time is a ratio of sums over the steps, so that
what a method does now and then counts, with its 95% bootstrap interval over the steps. What is done once, such as an
order of the rows, is not in it.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from common.evaluation.statistics import ratio_of_sums
from tests.bench.arm import Arm, Setting
from tests.bench.method_results import AGAIN, Cost, cpu, today
from tests.bench.turns import Done, in_turns, taking_turns
from tests.conftest import REPOSITORY

STEPS, WARMUP = 100, 6
FEW = {  # documents, as a few are read
    "domain": "medical", "pipeline": "cpt-only", "gate.mode": "off", "embedded.documents_per_entity": "8",
    "embedded.general_documents_per_entity": "8", "base.precision": "float32", "cpt.precision": "float32",
    "base.tokens": "4096", "cpt.tokens": "4096", "run.verbosity": "quiet",
    "run.checkpoint_minutes": "60",
}  # fmt: skip
ROOM = 4  # steps of a stage beyond those measured, so that no loop ends before the others


def words_of(setting: Setting, data: Mapping[str, str], folder: Path, steps: int = STEPS) -> dict[str, str]:
    """Return the overrides under which the stage of a setting trains for as many steps as are measured."""
    words = {**FEW, **data, **setting.words, "out": str(folder / "store")}
    section = "sft" if setting.stage.startswith("sft") else "cpt"
    batch = int(words.get(f"{section}.batch_tokens", 512))
    return {
        **words,
        f"{section}.batch_tokens": str(batch),
        f"{setting.stage}.tokens": str(batch * (WARMUP + steps + ROOM)),
    }


def loop(setting: Setting, data: Mapping[str, str], folder: Path, steps: int, done: Done) -> None:
    """Train under a setting, with a turn for every step; note at the end what the process held at most."""
    from common.config.resolve import resolve
    from common.console import Console
    from common.engine.run import run_stage
    from tests.bench.methods import needed, with_base
    from tests.bench.tokens import peak_memory

    resolved = resolve(with_base(words_of(setting, data, folder, steps)), REPOSITORY)
    *before, last = needed(resolved.nodes, setting.stage)
    for name in before:
        run_stage(resolved, name, Console("quiet"))
    number = 0

    def counted() -> None:
        nonlocal number
        number += 1
        if number == WARMUP + steps + 1:
            (folder / "peak").write_text(str(peak_memory()), encoding="utf-8")
        done()

    with taking_turns(counted):
        run_stage(resolved, last, Console("quiet"))


def of_text(arms: Mapping[str, Arm], text: str, data: Mapping[str, str], steps: int = STEPS) -> Iterator[Cost]:
    """Yield the costs of the arms that are timed on a text, each on the first of its own.

    Those of methods that go by scores come with the embedded text, on text of theirs.
    """
    timed = {name: arm for name, arm in arms.items() if arm.timed}
    yield from measure({name: arm for name, arm in timed.items() if arm.texts[:1] == (text,)}, data, steps)
    scored = {name: arm for name, arm in timed.items() if arm.scored}
    if text == "embedded" and scored:
        with tempfile.TemporaryDirectory() as place:
            yield from measure(scored, scored_text(Path(place)), steps)


def scored_text(folder: Path) -> dict[str, str]:
    """Write the text of `just bench undesired`; return the overrides that name it."""
    from tests.bench.undesired_text import DOMAIN, write

    domain, manifest = write(folder, seed=0)
    return {"domain": str(domain), "data": str(manifest), "run.allow_code": DOMAIN}


def measure(arms: Mapping[str, Arm], data: Mapping[str, str], steps: int = STEPS) -> Iterator[Cost]:
    """Yield the cost of each arm, and first that of a second plain loop: processes differ though they do the same.

    Arms with one plain counterpart take turns with it, all in one run.
    """
    groups: list[Setting] = []
    for arm in arms.values():
        groups += [arm.steps[1]] if arm.steps[1] not in groups else []
    for plain in groups:
        members = {name: arm for name, arm in arms.items() if arm.steps[1] == plain}
        with tempfile.TemporaryDirectory() as place:
            again = {AGAIN: plain} if plain == groups[0] else {}
            settings = {"": plain, **again, **{name: arm.steps[0] for name, arm in members.items()}}
            folders = {name: Path(place) / (name or "first") for name in settings}
            for folder in folders.values():
                folder.mkdir()
            loops = {name: functools.partial(loop, one, data, folders[name], steps) for name, one in settings.items()}
            seconds = in_turns(loops, warmup=WARMUP)
            held = {name: float((folder / "peak").read_text("utf-8")) for name, folder in folders.items()}
        for name in [*again, *members]:
            ratio, low, high = ratio_of_sums(seconds[name][:steps], seconds[""][:steps])
            assert low is not None
            assert high is not None
            yield Cost(
                name, round(ratio, 4), round(low, 4), round(high, 4), steps,
                round((held[name] - held[""]) / 1e6, 1), today(), cpu(),
            )  # fmt: skip
