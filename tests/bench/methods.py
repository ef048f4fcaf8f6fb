"""What each method of the papers is worth here: against its plain counterpart, with the same seed and token budget.

Usage: `just bench methods [seeds=0,1,2,3,4] [methods=reptile,subset] [text=embedded|real data_root=<folder>]`.

Arms are `tests.bench.method_arms`. Each is a CPT of the tiny model and an exam in bits per byte; all arms of a seed
share its base. Results lie in `kept=runs/methods`, under a key over settings, seed and code, so that the same command
goes on where it stopped. They are copied to `tests/bench/methods.json`, from which `docs/methods.md` is written.
`seeds=none` trains nothing, and `costs=no` leaves the cost of a step out. With `tokens=` it is a trial, only printed.
It says nothing of larger models, or of budgets under which a method was meant to work.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.store.artifacts import fingerprint_of, write_json
from tests.bench import method_costs, method_page
from tests.bench.method_arms import ARMS, SIDES, Arm, Setting
from tests.bench.method_results import MEASURED, OVER, Results, Run, cpu, today
from tests.conftest import REPOSITORY

TEXTS = ("embedded", "real")
TOKENS, BASE_TOKENS = 40_960, {"embedded": 102_400, "real": 204_800}
REAL_TEXT = REPOSITORY / "tests" / "bench" / "real_text.yaml"  # a manifest; its files lie below data_root


def words_of(setting: Setting, text: str, tokens: int = TOKENS) -> dict[str, str]:
    """Return the overrides of an arm that its result depends on, without seed and places."""
    fixed = {
        "domain": "medical", "pipeline": "cpt-only", "gate.mode": "off", "evaluate.written": "false",
        "evaluate.text_documents": "60", "base.precision": "float32", "cpt.precision": "float32",
        "base.tokens": str(min(BASE_TOKENS[text], 4 * tokens)),
        "cpt.tokens": str(tokens), **({"evaluate.limit": "1"} if text == "embedded" else {}),
    }  # fmt: skip
    return {**fixed, **setting.words}


def data_words(data_root: str) -> dict[str, str]:
    """Return the overrides that name real text; none without a folder."""
    return {"data": str(REAL_TEXT), "data_root": str(Path(data_root).absolute())} if data_root else {}


def needed(nodes: Sequence[Any], last: str) -> list[str]:
    """Return the stages that a stage rests on, and itself, in their order."""
    by_name = {node.name: node for node in nodes}

    def before(name: str) -> Iterator[str]:
        for other in by_name[name].inputs:
            yield from before(other)
        yield name

    wanted = set(before(last))
    return [node.name for node in nodes if node.name in wanted]


def train(setting: Setting, text: str, seed: int, kept: Path, tokens: int, data_root: str = "") -> Run:
    """Return the result of one arm: the one that is kept, or a new one of the product's own stages."""
    from common.config.resolve import resolve
    from common.console import Console
    from common.engine.code import code_of
    from common.engine.run import run_stage

    words = words_of(setting, text, tokens)
    places = {"out": str(kept / "store"), "run.verbosity": "quiet", "seed": str(seed)}
    resolved = resolve({**words, **places, **data_words(data_root)}, REPOSITORY)
    exam = f"exam-{setting.stage}"
    names = needed(resolved.nodes, exam)
    kinds = {node.name: node.kind for node in resolved.nodes}
    settings = {name: resolved.config.stages[name] for name in names}
    key = fingerprint_of({
        "words": words, "seed": seed, "text": REAL_TEXT.read_text(encoding="utf-8") if data_root else text,
        "settings": {name: one.model_dump(mode="json") for name, one in settings.items()},
        "world": [getattr(resolved.config, part).model_dump(mode="json") for part in ("model", "embedded")],
        "code": {name: code_of(kinds[name], REPOSITORY, settings[name])["digest"] for name in names},
    })  # fmt: skip
    file = kept / "arms" / f"{key}.json"
    if file.exists():
        return Run(**json.loads(file.read_text(encoding="utf-8")))
    started, used = time.monotonic(), time.process_time()
    for name in names:
        made = run_stage(resolved, name, Console("quiet"))
    bits = {side: float(made.manifest["metrics"][f"{side}_bits_per_byte"]) for side in SIDES}
    run = Run(
        text, words, setting.stage, seed, bits["domain"], bits["general"], today(), cpu(),
        round(time.process_time() - used, 1), round(time.monotonic() - started, 1),
    )  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, run.as_dict())
    return run


def asked_arms(methods: str) -> dict[str, Arm]:
    """Return the named arms, or all. Raises ValueError for a name without one."""
    names = [name for name in methods.split(",") if name] or list(ARMS)
    if unknown := [name for name in names if name not in ARMS]:
        raise ValueError(f"methods={unknown[0]}: there is no such arm. Known: {', '.join(ARMS)}.")
    return {name: arm for name, arm in ARMS.items() if name in names}


def asked_seeds(seeds: str) -> list[int]:
    """Return the seeds. Raises ValueError for what is no number."""
    if seeds == "none":
        return []
    try:
        return [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise ValueError(f"seeds={seeds}: expected numbers such as 0,1,2, or none.") from None


def main(
    seeds: str = "0,1,2,3,4", methods: str = "", text: str = "embedded", data_root: str = "",
    kept: str = "runs/methods", tokens: str = "", costs: str = "yes",
) -> int:  # fmt: skip
    """Train the arms seed by seed, measure what a step costs, and write the page. Returns 1 where a limit is missed."""
    try:
        arms, numbers = asked_arms(methods), asked_seeds(seeds)
        if text not in TEXTS or (text == "real") != bool(data_root):
            raise ValueError(f"text={text}: expected embedded, or real together with data_root=<folder>.")
        if tokens and not tokens.isdecimal():
            raise ValueError(f"tokens={tokens}: expected a number of tokens, or nothing.")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    arms = {name: arm for name, arm in arms.items() if text in arm.texts}
    place = (REPOSITORY / kept).absolute()
    budget = int(tokens) if tokens else TOKENS
    results = Results() if tokens else Results.read(MEASURED)
    for seed in numbers:
        for setting in settings_of(arms):
            run = train(setting, text, seed, place, budget, data_root)
            print(
                f"    seed {seed}, {short(setting.words)}: domain {run.domain:.4f}, general {run.general:.4f} "
                f"({run.processor:.0f} s of the processor)", flush=True,
            )  # fmt: skip
            results = results.with_run(run)
            _write(results, trial=bool(tokens))
    if costs == "yes" and numbers:
        for cost in method_costs.measure(arms, data_words(data_root)):
            print(f"    {cost.line(arms[cost.name].limit)}", flush=True)
            results = results.with_cost(cost)
        _write(results, trial=bool(tokens))
    for line in method_page.summary(results, arms, lambda setting, text: words_of(setting, text, budget)):
        print(f"  {line}")
    _write(results, trial=bool(tokens))
    if not tokens:
        method_page.write(results, words_of)
    return int(any(cost.name in arms and cost.verdict(arms[cost.name].limit) == OVER for cost in results.costs))


def settings_of(arms: Mapping[str, Arm]) -> list[Setting]:
    """Return the settings that arms need, each once."""
    found = [setting for arm in arms.values() for setting in (arm.plain, arm.on)]
    return [setting for place, setting in enumerate(found) if setting not in found[:place]]


def short(words: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in words.items())


def _write(results: Results, *, trial: bool) -> None:
    if not trial:
        write_json(MEASURED, results.as_dict())
