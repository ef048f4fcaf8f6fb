"""What each method of the papers is worth here: against its plain counterpart, with the same seed and token budget.

Usage: `just bench methods [seeds=0,1,2,3,4] [methods=reptile,subset] [data_root=<folder>]`.

Texts are the embedded domain, and with a folder of public files `tests/bench/real_text.yaml` too; `text=real` is that
alone. `text=smollm2` is its medicine on SmolLM2-135M-Instruct, which a Python package carries: about 10 minutes for a
setting on one core. Arms are `tests.bench.method_arms`. Each is a CPT of the tiny model, or of that checkpoint, and an
exam in bits per byte; all arms of a seed share its base. Results lie in `kept=runs/methods`, under a key over settings,
seed and code, so that the same command goes on where it stopped. They are copied to `tests/bench/methods.json`;
`docs/methods.md` is written from it. `seeds=none` trains nothing; `costs=no` leaves the cost of a step out, and
`costs=only` measures nothing else, over `steps=`. With `tokens=` it is a trial, only printed. It says nothing of larger
models, or of budgets under which a method was meant to work.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.store.artifacts import fingerprint_of, write_json
from tests.bench import method_costs, method_page, undesired_page, undesired_results
from tests.bench.arm import BASE, CHECKPOINT, SIDES, Arm, Setting
from tests.bench.method_arms import ARMS
from tests.bench.method_results import MEASURED, OVER, Results, Run, cpu, today
from tests.conftest import REPOSITORY

TEXTS = ("embedded", "real")
TOKENS, BASE_TOKENS = 40_960, {"embedded": 102_400, "real": 163_840}
REAL_TEXT = REPOSITORY / "tests" / "bench" / "real_text.yaml"  # a manifest; its files lie below data_root


def words_of(setting: Setting, text: str, tokens: int = TOKENS) -> dict[str, str]:
    """Return the overrides of an arm that its result depends on, without seed and places."""
    fixed = {
        "domain": "medical", "pipeline": "cpt-only", "gate.mode": "off", "evaluate.written": "false",
        "cpt.tokens": str(tokens),
    }  # fmt: skip
    if text == CHECKPOINT:
        # The profile's rate for all weights, 5e-4, is for a third of these tokens; here it unlearns.
        fixed |= {"profile": "smollm2-135m-instruct", "peft": "full"}
        if "rewarm" not in setting.words.get("cpt.methods", ""):  # which sets the rate itself
            fixed |= {"cpt.train.learning_rate": "1.0e-4"}
    else:
        fixed |= {"base.precision": "float32", "cpt.precision": "float32", "evaluate.text_documents": "60"}
        fixed |= {"base.tokens": str(min(BASE_TOKENS[text], 4 * tokens))}
    return {**fixed, **({"evaluate.limit": "1"} if text == "embedded" else {}), **setting.words}


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


def rests_on(resolved: Any, exam: str) -> tuple[list[str], dict[str, Any]]:
    """Return the stages that an exam rests on, and it, in their order; and which settings and code decide it."""
    from common.engine.code import code_of

    names, kinds = needed(resolved.nodes, exam), {node.name: node.kind for node in resolved.nodes}
    settings = {name: resolved.config.stages[name] for name in names}
    return names, {
        "settings": {name: one.model_dump(mode="json") for name, one in settings.items()},
        "code": {name: code_of(kinds[name], REPOSITORY, settings[name])["digest"] for name in names},
    }


def train(setting: Setting, text: str, seed: int, kept: Path, tokens: int, data_root: str = "") -> Run:
    """Return the result of one arm: the one that is kept, or a new one of the product's own stages."""
    from common.config.resolve import resolve
    from common.console import Console
    from common.engine.run import run_stage

    words = words_of(setting, text, tokens)
    places = {"out": str(kept / "store"), "run.verbosity": "quiet", "seed": str(seed), "name": f"{text}-{seed}"}
    given = {**words, **places, **data_words(data_root)}
    resolved = resolve(given, REPOSITORY)
    names, decided = rests_on(resolved, f"exam-{setting.stage}")
    key = fingerprint_of({
        "words": words, "seed": seed, "text": REAL_TEXT.read_text(encoding="utf-8") if data_root else text,
        "world": [getattr(resolved.config, part).model_dump(mode="json") for part in ("model", "embedded")], **decided,
    })  # fmt: skip
    file = kept / "arms" / f"{key}.json"
    if file.exists():
        return Run(**json.loads(file.read_text(encoding="utf-8")))
    started, used = time.monotonic(), time.process_time()
    resolved = resolve(with_base(given), REPOSITORY)
    for name in names:
        last = run_stage(resolved, name, Console("quiet"))
    bits = {side: float(last.manifest["metrics"][f"{side}_bits_per_byte"]) for side in SIDES}
    run = Run(
        text, words, setting.stage, seed, bits["domain"], bits["general"], today(), cpu(),
        round(time.process_time() - used, 1), round(time.monotonic() - started, 1),
    )  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, run.as_dict())
    return run


def made(resolved: Any, name: str) -> Path:
    """Return the folder of a stage's result, which is made where it is missing."""
    from common.console import Console
    from common.engine.run import run_stage

    return Path(run_stage(resolved, name, Console("quiet")).path)


def with_base(words: Mapping[str, str], make: Callable[[Any, str], Path] = made) -> dict[str, str]:
    """Return overrides in which `BASE` is the folder of the base that they make; it is made where one asks for it."""
    from common.config.resolve import resolve

    if not any(BASE in word for word in words.values()):
        return dict(words)
    resolved = resolve({**words, "run.verbosity": "quiet"}, REPOSITORY)
    folder = [make(resolved, name) for name in needed(resolved.nodes, "base")][-1]
    return {key: word.replace(BASE, str(folder)) for key, word in words.items()}


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


def asked_texts(text: str, data_root: str) -> list[str]:
    """Return the texts: the embedded one, and with a folder the real one too. Raises ValueError where it is missing."""
    if text not in ("", *TEXTS, CHECKPOINT):
        raise ValueError(f"text={text}: expected {', '.join(TEXTS)} or {CHECKPOINT}, or nothing for the first two.")
    if data_root and not Path(data_root).is_dir():
        raise ValueError(f"data_root={data_root}: there is no such folder. Name the one with the public files.")
    if text in ("real", CHECKPOINT) and not data_root:
        raise ValueError(f"text={text}: needs data_root=<folder>, the one with the public files.")
    return [text] if text else list(TEXTS if data_root else TEXTS[:1])


def main(
    seeds: str = "0,1,2,3,4", methods: str = "", text: str = "", data_root: str = "", kept: str = "runs/methods",
    tokens: str = "", costs: str = "yes", steps: str = str(method_costs.STEPS),
) -> int:  # fmt: skip
    """Train the arms seed by seed, measure what a step costs, write the page. Returns 1 where a limit is missed."""
    try:
        arms, numbers, texts = asked_arms(methods), asked_seeds(seeds), asked_texts(text, data_root)
        if tokens and not tokens.isdecimal():
            raise ValueError(f"tokens={tokens}: expected a number of tokens, or nothing.")
        if not steps.isdecimal():
            raise ValueError(f"steps={steps}: expected a number of steps.")
        if costs not in ("yes", "no", "only"):
            raise ValueError(f"costs={costs}: expected yes, no or only.")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    place, budget = (REPOSITORY / kept).absolute(), int(tokens or TOKENS)

    def keep(results: Results) -> None:
        if not tokens:
            write_json(MEASURED, results.as_dict())

    limits = {name: arm.limit for name, arm in arms.items()}
    results = Results() if tokens else Results.read(MEASURED)
    for name in texts:
        root = data_root if name != "embedded" else ""
        trained = {key: arm for key, arm in arms.items() if name in arm.texts}
        for run in train_all(trained, name, numbers if costs != "only" else [], place, budget, root):
            keep(results := results.with_run(run))
        if numbers and costs != "no":
            for cost in method_costs.of_text(arms, name, data_words(root), int(steps)):
                print(f"    {cost.line(limits.get(cost.name))}", flush=True)
                keep(results := results.with_cost(cost))
    keep(results)
    for line in method_page.summary(results, arms, lambda setting, text: words_of(setting, text, budget)):
        print(f"  {line}")
    if not tokens:
        outcomes = undesired_results.Outcomes.read(undesired_results.MEASURED)
        method_page.write(results, words_of, undesired_page.section(outcomes))
    return int(any(cost.verdict(limits.get(cost.name)) == OVER for cost in results.costs))


def train_all(
    arms: Mapping[str, Arm], text: str, seeds: Sequence[int], kept: Path, tokens: int, data_root: str
) -> Iterator[Run]:
    """Yield the run of each setting that arms need, seed by seed, so that what is there is always paired."""
    for seed in seeds:
        for setting in settings_of(arms, text):
            run = train(setting, text, seed, kept, tokens, data_root)
            words = " ".join(f"{key}={value}" for key, value in setting.words.items())
            print(
                f"    {text}, seed {seed}, {words}: domain {run.domain:.4f}, general {run.general:.4f} "
                f"({run.processor:.0f} s of the processor)", flush=True,
            )  # fmt: skip
            yield run


def settings_of(arms: Mapping[str, Arm], text: str) -> list[Setting]:
    """Return the settings that arms need for a text, each once, a plain one before what is set against it."""
    found = [setting for arm in arms.values() for setting in reversed(arm.settings(text))]
    return [setting for place, setting in enumerate(found) if setting not in found[:place]]
