"""Budgets for a user's own files: passes over local rows, where a profile's tokens were meant for other data.

Usage: `resolved = fit_to_own_data(resolve(overrides, repository))`, before anything is planned.

What is decided enters fingerprints. It follows from the bytes of the files and from settings alone, never from the
time that reading takes: the same files give the same run on every machine. Each decision is a layer, whose label says
why. What a user, a manifest or a pipeline sets is never changed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from common.config.answering import ExpertSettings
from common.config.batches import own_share
from common.config.cleaning import from_lineage
from common.config.continued import chained
from common.config.kinds import kind_of
from common.config.node import Node
from common.config.resolve import EMBEDDED, HUB, Resolved
from common.config.stage_sections import Layer
from common.config.stages import TrainingSettings
from common.config.variants import with_layers
from common.cost.shapes import shape_of
from common.data.corpus import Corpus
from common.data.general_world import WithGeneralWorld
from common.data.sizes import CHATML, OWN, RowSizes, Sizes
from common.engine.corpora import open_corpus
from common.errors import RecipeError
from common.models.planned import context_after

LABEL = "own data: "
# Up to about four passes over a text are nearly as good as new text: Muennighoff et al. 2023, arXiv 2305.16264.
PASSES = 4
STEPS = 20  # a schedule with fewer is warm-up and little else
ROWS = 4  # of the smallest batch that is chosen here


def fit_to_own_data(resolved: Resolved) -> Resolved:
    """Return a run whose budgets suit its user's own files; on embedded data, and a frozen plan, it stays as it is.

    Data that cannot be read change nothing: the plan says what is wrong with them.
    """
    if resolved.config.data == EMBEDDED or not resolved.layers:
        return resolved
    with contextlib.suppress(RecipeError):
        short = with_layers(resolved, list(_within_context(resolved)))
        try:
            corpus = open_corpus(short)
        except RecipeError as error:
            return replace(resolved, opened=error)
        return replace(with_layers(short, list(_layers(short, corpus))), opened=corpus)
    return resolved


def reasons(resolved: Resolved) -> list[str]:
    """Return what was decided for a run's own data, a line for each setting."""
    stages, found = [node.name for node in resolved.own], {}
    for key, label in resolved.origins.items():
        if label.startswith(LABEL) and (stage := key.partition(".")[0]) in stages:
            found[key] = f"{stage}: {label.removeprefix(LABEL)}"
    return list(found.values())


def repeated(resolved: Resolved, corpus: Corpus, sizes: RowSizes) -> Iterator[str]:
    """Yield a line for each stage that reads local text more often than is nearly as good as new text."""
    for own in _own_stages(resolved, corpus, sizes):
        settings, name = own.settings, own.node.name
        passes = settings.epochs if settings.tokens is None else settings.tokens * own_share(settings) / own.tokens
        if not settings.learns_answers and (passes or 0) > PASSES:
            ((key, budget),) = _passes(own, resolved).items()
            yield (
                f"{name}: reads its {_amount(own.found)} of text {_number(passes or 0)} times. Up to about {PASSES} "
                f"passes are nearly as good as new text, and more are worth little (arXiv 2305.16264); {name}.{key}="
                f"{budget} stops there."
            )


@dataclass(frozen=True)
class _Own:
    """A stage that trains on rows of the user's own files alone."""

    node: Node
    settings: TrainingSettings
    found: Sizes
    tokens: float  # of one pass


def _own_stages(resolved: Resolved, corpus: Corpus, sizes: RowSizes) -> Iterator[_Own]:
    config = resolved.config
    for node in resolved.own if config.data != EMBEDDED else ():
        settings, kind = config.stages[node.name], kind_of(node.kind)
        if not isinstance(settings, TrainingSettings) or isinstance(settings, ExpertSettings) or node.sampled:
            continue
        if kind.starts and config.model.path is not None:
            continue
        role = "replay" if settings.replay == 1 else kind.roles[0]
        lent = isinstance(corpus, WithGeneralWorld) and corpus.lends(role)
        found = None if lent else sizes.of(role)  # none too where rows are on the Hub
        if found is not None and (tokens := found.total(settings.sequence_length)):
            yield _Own(node, settings, found, tokens)


def _within_context(resolved: Resolved) -> Iterator[Layer]:
    """Shorten rows that a profile or a domain made longer than the model can read."""
    for node in resolved.nodes:
        settings, name = resolved.config.stages[node.name], node.name
        context = context_after(resolved, name)
        length = getattr(settings, "sequence_length", 0)
        if context is None or length <= context or not is_default(f"{name}.sequence_length", resolved):
            continue
        fits = 2 ** int(math.log2(context))
        yield _layer(name, {"sequence_length": fits}, f"rows of {fits} tokens, as the model's context is {context}")
        batch = getattr(settings, "batch_tokens", fits)
        if batch % fits and is_default(f"{name}.batch_tokens", resolved):
            whole = max(fits, batch // fits * fits)
            yield _layer(name, {"batch_tokens": whole}, f"batches of whole rows of {fits} tokens")


def _layers(resolved: Resolved, corpus: Corpus) -> Iterator[Layer]:
    config, shape = resolved.config, shape_of(resolved.config.model)
    sizes = RowSizes(
        corpus, tokenizer=None, vocabulary=None if shape is None else shape.vocabulary,
        turn_tokens=OWN if config.model.path is None else CHATML,
    )  # fmt: skip
    stages = {own.node.name: own for own in _own_stages(resolved, corpus, sizes)}
    for name, own in stages.items():
        if own.node.settings in stages and own.node.settings != name:
            continue  # it follows that stage, below
        reason = _too_often(own, resolved)
        passes = PASSES if reason else own.settings.epochs
        batch = _smaller_batch(own, resolved, passes)
        layers = [_layer(name, _passes(own, resolved, batch), reason)] if reason else []
        yield from (*layers, *batch)
        for other in stages.values():
            if other.node.settings == name != other.node.name:
                yield from _following(other, own, layers, batch, resolved)
    yield from _without_replay(resolved, corpus)


def _following(
    own: _Own, first: _Own, layers: Sequence[Layer], batch: Sequence[Layer], resolved: Resolved
) -> Iterator[Layer]:
    """Yield for a stage what was chosen for the one whose settings it has, so that the two can be compared.

    One that reads other rows, as a control arm on replay alone does, gets about as many tokens.
    """
    name, size = own.node.name, own.settings.batch_tokens
    if batch and is_default(f"{name}.batch_tokens", resolved):
        size = batch[0].values[first.node.name]["batch_tokens"]
        yield _layer(name, {"batch_tokens": size}, f"as {first.node.name} has")
    if layers and is_default(f"{name}.tokens", resolved):
        if own.settings.replay == first.settings.replay:
            yield _layer(name, _passes(own, resolved, batch), f"{PASSES} passes, as {first.node.name} makes")
        else:
            tokens = max(1, round(PASSES * first.tokens / size)) * size
            yield _layer(name, {"tokens": tokens}, f"about as many tokens as {first.node.name} reads")


def _passes(own: _Own, resolved: Resolved, batch: Sequence[Layer] = ()) -> dict[str, int]:
    """Return the budget of PASSES passes: in tokens where a stage goes on in the data behind another, or is behind."""
    if own.node.name not in chained(resolved.nodes, resolved.config.stages):
        return {"epochs": PASSES}
    sizes = [size for layer in batch for values in layer.values.values() if (size := values.get("batch_tokens"))]
    size = int(sizes[0]) if sizes else own.settings.batch_tokens
    return {"tokens": max(1, round(PASSES * own.tokens / own_share(own.settings) / size)) * size}


def _layer(stage: str, values: Mapping[str, object], reason: str) -> Layer:
    return Layer(f"{LABEL}{reason}", {stage: dict(values)}, stage=stage)


def is_default(key: str, resolved: Resolved) -> bool:
    """Whether nobody chose a value for these data: it is a profile's, or a domain's for data of another kind."""
    origin = resolved.origins.get(key, "profile")
    return origin.startswith("profile") or (origin.startswith("domain ") and resolved.config.data != HUB)


def _too_often(own: _Own, resolved: Resolved) -> str:
    """Return why passes replace a stage's tokens; nothing where the tokens stay."""
    name, tokens = own.node.name, own.settings.tokens
    if tokens is None or not is_default(f"{name}.tokens", resolved):
        return ""
    times = tokens * own_share(own.settings) / own.tokens
    if times <= PASSES:
        return ""
    what = "conversations" if own.settings.learns_answers else "text"
    return (
        f"{PASSES} passes over {_amount(own.found)} of local {what} (about {_number(own.tokens)} tokens); the "
        f"{_whose(f'{name}.tokens', resolved)}'s {tokens:,} tokens would read it {_number(times)} times "
        f"({name}.tokens={tokens} keeps them)"
    )


def _smaller_batch(own: _Own, resolved: Resolved, passes: float | None) -> list[Layer]:
    """Halve a batch that nobody chose for these data until there are steps enough, or few rows are left in it."""
    settings, name = own.settings, own.node.name
    spent = passes * own.tokens / own_share(settings) if passes else settings.tokens or 0
    needs = resolved.layers[0].values.get("needs", {})
    least = max(ROWS, needs.get("gpus", 1) * needs.get("machines", 1))  # of the profile, which knows no `run`
    rows = settings.batch_tokens // settings.sequence_length
    while rows % 2 == 0 and rows // 2 >= least and spent / (rows * settings.sequence_length) < STEPS:
        rows //= 2
    batch = rows * settings.sequence_length
    if batch == settings.batch_tokens or not is_default(f"{name}.batch_tokens", resolved):
        return []
    steps = spent / settings.batch_tokens
    few = "less than one step" if steps < 1 else f"{_number(steps)} steps"
    return [_layer(name, {"batch_tokens": batch}, f"batches of {batch:,} tokens; {settings.batch_tokens:,} make {few}")]


def _without_replay(resolved: Resolved, corpus: Corpus) -> Iterator[Layer]:
    """Leave replay out where the data have none and nobody asked for it."""
    sources = corpus.conversations("replay")
    for node in resolved.own:
        settings = resolved.config.stages[node.name]
        replay = getattr(settings, "replay", 0)
        if not isinstance(settings, TrainingSettings) or not 0 < replay < 1 or from_lineage(settings):
            continue
        if kind_of(node.kind).starts or not is_default(key := f"{node.name}.replay", resolved):
            continue
        usable = any(sources.values()) if settings.assistant_only else bool(sources)
        if not usable:
            what = "conversations" if settings.assistant_only else "text"
            yield _layer(
                node.name, {"replay": 0},
                f"no replay, as no source has {what} with role: replay; the {_whose(key, resolved)}'s {replay:g} of "
                f"general {what} keeps more of what the model knows",
            )  # fmt: skip


def _whose(key: str, resolved: Resolved) -> str:
    """Return who set a default: `profile` or `domain`."""
    return resolved.origins.get(key, "profile").partition(" ")[0]


def _amount(found: Sizes) -> str:
    """Return how much text there is."""
    size = found.mean_bytes * found.rows
    for unit, each in (("GB", 1e9), ("MB", 1e6)):
        if size >= each / 100:
            return f"{_number(size / each)} {unit}"
    return f"{_number(size / 1e3)} kB"


def _number(value: float) -> str:
    """Return a number to two digits, such as 0.15, 4.2, 38,000."""
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"
