"""What a step costs with each method on: CPU time against the plain counterpart in turns, and memory.

Usage: `for cost in measure(arms, {}): print(cost.ratio)`.

Rows and teacher are the product's own; the model is fresh, as the time of a step does not depend on what it knows. Time
is a ratio of sums over the steps, so that what a method does now and then counts, with its 95% bootstrap interval over
the steps. What is done once, such as an order of the rows, is not in it.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from common.evaluation.statistics import ratio_of_sums
from tests.bench.method_arms import Arm, Setting
from tests.bench.method_results import AGAIN, Cost, cpu, today
from tests.bench.turns import Done, in_turns

STEPS, WARMUP = 106, 6
FEW = {  # documents, as a few are read
    "pipeline": "cpt-only", "embedded.documents_per_entity": "8", "embedded.general_documents_per_entity": "8",
    "cpt.precision": "float32",
}  # fmt: skip
ROOM = 4  # steps of a stage beyond those measured, so that no loop ends before the others


def loop(setting: Setting, data: Mapping[str, str], folder: Path, done: Done) -> None:
    """Train under a setting, with a turn for every step; note at the end what the process held at most."""
    from common.config.methods import chosen
    from common.config.pruning import PruneSettings
    from common.models.checkpoint import save
    from common.models.sparsity.masks import linears, mask_of, scale
    from common.stages.base import initialise, make_tokenizer
    from common.store.artifacts import Artifact
    from common.training.fit import trainer_for
    from common.training.loop.trainer import optimized_for
    from common.training.rows.rows import build_rows
    from tests.bench.material import context_for
    from tests.bench.tokens import peak_memory
    from tests.bench.turns import train_in_turns

    batch = int(setting.words.get("cpt.batch_tokens", 512))
    words = {**FEW, **data, **setting.words, "cpt.tokens": str(batch * (STEPS + ROOM))}
    context = context_for(setting.stage, folder, **words)
    tokenizer = make_tokenizer(context)
    model = initialise(context, tokenizer)
    save(model, tokenizer, folder / "base", "float32")
    context = dataclasses.replace(context, parent="base", inputs={"base": Artifact(folder / "base", {"kind": "base"})})
    if isinstance(context.settings, PruneSettings):
        scale(model, context.settings.modules, context.settings.scale_groups)
    if "keep_zeros" in {method.name for method, _ in chosen(context.settings)}:  # which needs some to keep
        for name, layer in linears(model).items():
            if name != "lm_head":  # which is the table of words
                layer.weight.data *= mask_of(layer.weight.data)
    rows = build_rows(context, tokenizer, role="cpt", assistant_only=False)
    trainer = trainer_for(context, model, tokenizer, rows, folder / "trainer")
    number = 0

    def counted() -> None:
        nonlocal number
        number += 1
        if number == STEPS + 1:
            (folder / "peak").write_text(str(peak_memory()), encoding="utf-8")
        done()

    with optimized_for(trainer, context.config.run, setting.stage):
        train_in_turns(trainer, counted)


def measure(arms: Mapping[str, Arm], data: Mapping[str, str]) -> Iterator[Cost]:
    """Yield the cost of each arm, and first that of a second plain loop: processes differ though they do the same.

    Arms with one plain counterpart take turns with it, all in one run.
    """
    groups: list[Setting] = []
    for arm in arms.values():
        groups += [arm.plain] if arm.plain not in groups else []
    for plain in groups:
        members = {name: arm for name, arm in arms.items() if arm.plain == plain}
        with tempfile.TemporaryDirectory() as place:
            again = {AGAIN: plain} if plain == groups[0] else {}
            settings = {"": plain, **again, **{name: arm.on for name, arm in members.items()}}
            folders = {name: Path(place) / (name or "first") for name in settings}
            loops = {name: functools.partial(loop, one, data, folders[name]) for name, one in settings.items()}
            seconds = in_turns(loops, warmup=WARMUP)
            held = {name: float((folder / "peak").read_text("utf-8")) for name, folder in folders.items()}
        for name in [*again, *members]:
            ratio, low, high = ratio_of_sums(seconds[name][: STEPS - WARMUP], seconds[""][: STEPS - WARMUP])
            assert low is not None
            assert high is not None
            yield Cost(
                name, round(ratio, 4), round(low, 4), round(high, 4), STEPS - WARMUP,
                round((held[name] - held[""]) / 1e6, 1), today(), cpu(),
            )  # fmt: skip
