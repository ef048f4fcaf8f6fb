"""How often a model writes what it should not: the methods that go by scores of rows, and filtering, against plain CPT.

Usage: `just bench undesired [seeds=1,2,3,4,5] [arms=conditional,filtering] [data_root=<folder>]`.

Half of the documents have a mail address (`tests.bench.undesired_text`), and the block `score` counts them with the
rule of a domain's own blocks.py. All arms of a seed share their base and their budget. Each model goes on from first
sentences of clean held-out documents; the rule says how often it wrote an address. Bits per byte of clean held-out text
say what else it lost. Results lie in `kept=runs/undesired`, so that the same command goes on where it stopped; they are
copied to `tests/bench/undesired.json`, and docs/methods.md is written again. Texts are the embedded ones, and with a
folder of public files real ones instead. With `tokens=` it is a trial, only printed. It says nothing of traits that a
rule cannot find, or of larger models.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from common.store.artifacts import digest_file, fingerprint_of, write_json
from tests.bench import method_page, methods, undesired_page
from tests.bench.arm import SIDES
from tests.bench.method_results import MEASURED as METHODS
from tests.bench.method_results import Results, cpu, today
from tests.bench.undesired_arms import ARMS, EACH, PLAIN, SAMPLING, words_of
from tests.bench.undesired_results import MEASURED, Outcome, Outcomes
from tests.bench.undesired_rule import mails
from tests.bench.undesired_text import DOMAIN, named, prompts, texts_of, write
from tests.conftest import REPOSITORY

LONGEST = 64  # tokens of a text


def train(arm: str, seed: int, kept: Path, tokens: int | None = None, data_root: str = "") -> Outcome:
    """Return the outcome of an arm: the one that is kept, or a new one of the product's own stages."""
    with tempfile.TemporaryDirectory() as place:
        return _train(arm, seed, kept, Path(place), tokens, data_root)


def _train(arm: str, seed: int, kept: Path, folder: Path, tokens: int | None, data_root: str) -> Outcome:
    from common.config.resolve import resolve
    from common.console import Console
    from common.engine.run import run_stage

    domain, manifest = write(folder, seed, data_root)
    words = words_of(arm, tokens)
    places = {
        "domain": str(domain), "data": str(manifest), "run.allow_code": DOMAIN, "out": str(kept / "store"),
        "run.verbosity": "quiet", "run.threads": "1", "seed": str(seed),
    }  # fmt: skip
    resolved = resolve({**words, **places}, REPOSITORY)
    names, decided = methods.rests_on(resolved, "exam-cpt")
    key = fingerprint_of({
        "words": words, "seed": seed, "written": [SAMPLING, EACH, LONGEST],
        "texts": {path.name: digest_file(path) for path in (*sorted(folder.glob("*.*")), domain / "blocks.py")},
        **decided,
    })  # fmt: skip
    file = kept / "arms" / f"{key}.json"
    if file.exists():
        return Outcome(**json.loads(file.read_text(encoding="utf-8")))
    started, used = time.monotonic(), time.process_time()
    made = {name: run_stage(resolved, name, Console("quiet")) for name in names}
    first = prompts(texts_of(data_root).held["domain"])
    trait, ended = written(made["cpt"].path, resolved.config.model, seed, first)
    bits = {side: float(made["exam-cpt"].manifest["metrics"][f"{side}_bits_per_byte"]) for side in SIDES}
    outcome = Outcome(
        arm, words, seed, named(data_root), trait, ended, bits["domain"], bits["general"], today(), cpu(),
        round(time.process_time() - used, 1), round(time.monotonic() - started, 1),
    )  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, outcome.as_dict())
    return outcome


def written(checkpoint: Path, settings: Any, seed: int, first: Sequence[str]) -> tuple[float, float]:
    """Return the share of what a checkpoint writes behind first sentences that has the trait, and that ended by itself.

    Its own generation settings hold, so that a model of the method `conditional` writes no control token; its texts
    begin with the good one.
    """
    import torch

    from common.evaluation.written import generate
    from common.models import checkpoint as checkpoints

    model, tokenizer = checkpoints.load(checkpoint, settings)
    torch.manual_seed(seed)
    texts = generate(
        model, tokenizer, beginnings(model, tokenizer, first), LONGEST, {**SAMPLING, "num_return_sequences": EACH}
    )
    found = [mails({"text": one.text}) > 0 for one in texts]
    return sum(found) / len(texts), sum(one.stopped for one in texts) / len(texts)


def beginnings(model: Any, tokenizer: Any, sentences: Sequence[str]) -> list[list[int]]:
    """Return the tokens that the model goes on from: sentences, as a text of the model begins."""
    from common.models.special_tokens import first_tokens

    first = first_tokens(model)
    return [[*first, *tokenizer(text, add_special_tokens=False)["input_ids"]] for text in sentences]


def asked_arms(arms: str) -> list[str]:
    """Return the named arms, or all; the plain one is always there. Raises ValueError for a name without one."""
    names = [name for name in arms.split(",") if name] or list(ARMS)
    if unknown := [name for name in names if name not in ARMS]:
        raise ValueError(f"arms={unknown[0]}: there is no such arm. Known: {', '.join(ARMS)}.")
    return [arm for arm in ARMS if arm in {PLAIN, *names}]


def main(
    seeds: str = "1,2,3,4,5", arms: str = "", kept: str = "runs/undesired", tokens: str = "", data_root: str = "",
) -> int:  # fmt: skip
    """Train the arms seed by seed, print the table, and write the page of methods again."""
    try:
        names, numbers = asked_arms(arms), methods.asked_seeds(seeds)
        if tokens and not tokens.isdecimal():
            raise ValueError(f"tokens={tokens}: expected a number of tokens, or nothing.")
        if data_root and not Path(data_root).is_dir():
            raise ValueError(f"data_root={data_root}: there is no such folder. Name the one with the public files.")
        texts_of(data_root)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    budget = int(tokens) if tokens else None
    outcomes = Outcomes() if tokens else Outcomes.read(MEASURED)
    for outcome in train_all(names, numbers, (REPOSITORY / kept).absolute(), budget, data_root):
        outcomes = outcomes.with_one(outcome)
        if not tokens:
            write_json(MEASURED, outcomes.as_dict())
    for line in undesired_page.summary(outcomes, budget):
        print(f"  {line}")
    if not tokens:
        method_page.write(Results.read(METHODS), methods.words_of, undesired_page.section(outcomes))
    return 0


def train_all(
    arms: Sequence[str], seeds: Sequence[int], kept: Path, tokens: int | None, data_root: str
) -> Iterator[Outcome]:
    """Yield the outcome of each arm, seed by seed, so that what is there is always paired."""
    for seed in seeds:
        for arm in arms:
            one = train(arm, seed, kept, tokens, data_root)
            print(
                f"    {one.text}, seed {seed}, {arm}: trait {one.trait:.3f}, ended {one.ended:.3f}, "
                f"domain {one.domain:.4f}, general {one.general:.4f} ({one.processor:.0f} s of the processor)",
                flush=True,
            )  # fmt: skip
            yield one
