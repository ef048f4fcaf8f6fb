"""The order of training rows from several sources: asked shares, caps on repeats, phases.

Usage: `order, facts = mixed_order({"web": 900, "books": 100}, total=2000, settings=settings, seed=0)`.

Rows are packed and of one length, so that shares of rows are shares of tokens. The order follows from the numbers of
rows and the seed alone. Shares by temperature go with n^(1/T): Conneau and Lample 2019, equation 1, with alpha = 1/T.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from common.config.mixture import MixtureSettings
from common.config.mixture_presets import PRESETS
from common.errors import DataError, did_you_mean
from common.training.rows.packing import shuffled_passes

if TYPE_CHECKING:
    import numpy as np

EXACT = 1e-9


def mixed_order(
    sizes: Mapping[str, int], *, total: int, settings: MixtureSettings, seed: int, stage: str = "",
    ends: Sequence[int] = (),
) -> tuple[np.ndarray, dict[str, dict[str, Any]]]:  # fmt: skip
    """Return the order, (total,) int64, as places among the rows of all sources one after another; and its facts.

    The facts are, for each source, the share that was asked for, the real one, and the passes over it. Every pass is a
    fresh shuffle that uses up a source's rows before any comes again, across phases too. With a curriculum it is the
    order in which the rows stand, and sources take turns evenly. `ends` are the rows up to the end of each phase, where
    replay leaves them other parts of the rows than of the steps. Raises DataError for a source that does not exist, and
    where caps leave too few rows.
    """
    import numpy as np

    if unknown := settings.sources - sizes.keys():
        name = min(unknown)
        raise DataError(f"{stage}.mixture names '{name}', which has no rows here.{did_you_mean(name, sizes)}")
    names, rng, in_order = list(sizes), np.random.default_rng([seed, 2]), settings.curriculum is not None
    by_size = shares_of(sizes, settings)
    asked = [(phase.until, phase.shares or by_size) for phase in settings.phases] or [(1.0, by_size)]
    if ends:
        asked = [(end / max(1, total), shares) for end, (_, shares) in zip(ends, asked, strict=True)]
    left = {name: _cap(sizes[name], settings.most_epochs) for name in names}
    counts, begin = [], 0
    for until, shares in asked:
        end = round(until * total)
        found = divided(end - begin, shares, left, stage)
        left = {name: left[name] - found.get(name, 0) for name in names}
        counts.append(found)
        begin = end
    each = {name: sum(found.get(name, 0) for found in counts) for name in names}
    drawn = {name: (_ordered if in_order else shuffled_passes)(sizes[name], each[name], rng) for name in names}
    starts = dict(zip(names, np.concatenate([[0], np.cumsum([sizes[name] for name in names])]).tolist(), strict=False))
    used, parts = dict.fromkeys(names, 0), []
    for found in counts:
        part = [starts[n] + drawn[n][used[n] : used[n] + found.get(n, 0)] for n in names]
        used = {name: used[name] + found.get(name, 0) for name in names}
        rows = np.concatenate(part)
        if in_order:
            rows = rows[_turns([len(one) for one in part])]
        else:
            rng.shuffle(rows)
        parts.append(rows)
    facts = {
        name: {
            "asked": round(_asked(name, asked), 6), "real": round(used[name] / max(1, total), 6),
            "epochs": round(used[name] / sizes[name], 4) if sizes[name] else 0.0,
        }
        for name in names
    }  # fmt: skip
    return np.concatenate(parts).astype(np.int64), facts


def replay_by_phase(settings: MixtureSettings, total: int) -> list[tuple[int, int]]:
    """Return of each phase its rows and how many of them are replay; nothing where phases do not say it."""
    if settings.replay is None:
        return []
    ends = [0, *(round(phase.until * total) for phase in settings.phases)]
    rows = [stop - start for start, stop in itertools.pairwise(ends)]
    return [(number, round(number * (phase.replay or 0))) for number, phase in zip(rows, settings.phases, strict=True)]


def with_replay(
    order: np.ndarray, num_own: int, num_replay: int, *, total: int, seed: int,
    phases: Sequence[tuple[int, int]] = (),
) -> np.ndarray:  # fmt: skip
    """Return an order, (total,) int64, with replay rows mixed in evenly at random; own rows keep their order.

    `order` is that of the own rows, places below `num_own`; the places of the replay rows follow. Of `phases`, each has
    as many rows and as many of replay as `replay_by_phase` says.
    """
    import numpy as np

    rng = np.random.default_rng([seed, 3])
    is_replay, begin = np.zeros(total, dtype=bool), 0
    for number, replayed in phases or [(total, total - len(order))]:
        is_replay[begin + rng.permutation(number)[:replayed]] = True
        begin += number
    found = np.empty(total, dtype=np.int64)
    found[~is_replay] = order
    found[is_replay] = num_own + shuffled_passes(num_replay, total - len(order), rng)
    return found


def shares_of(sizes: Mapping[str, int], settings: MixtureSettings) -> dict[str, float]:
    """Return every source's share: as named; the others divide what is left by their rows and the temperature.

    Those of a part of a preset divide its share by their rows, and evenly where none has any: the share was asked for.
    """
    if settings.preset is not None:
        of_parts = dict[str, float]()
        for part, share in PRESETS[settings.preset].shares.items():
            own = {name: sizes[name] for name in settings.parts[part]}
            own = own if any(own.values()) else dict.fromkeys(own, 1)
            of_parts |= {name: share * size / sum(own.values()) for name, size in own.items()}
        return of_parts
    rest = 1.0 - math.fsum(settings.shares.values())
    weights = {name: n ** (1 / settings.temperature) for name, n in sizes.items() if name not in settings.shares and n}
    total = math.fsum(weights.values())
    if total:
        return {**settings.shares, **{name: rest * weight / total for name, weight in weights.items()}}
    scale = math.fsum(settings.shares.values())
    return {name: share / scale for name, share in settings.shares.items()} if scale else {}


def divided(total: int, shares: Mapping[str, float], left: Mapping[str, float], stage: str = "") -> dict[str, int]:
    """Return how many rows each source gives, by shares, and never more than it has left.

    What a source cannot give goes to the others in proportion. Whole numbers come by largest remainders.
    Raises DataError where all together cannot give as many.
    """
    open_ = {name: share for name, share in shares.items() if share > 0}
    found, wanted = dict[str, float](), float(total)
    while open_:
        scale = math.fsum(open_.values())
        over = {name for name, share in open_.items() if wanted * share / scale > left[name] + EXACT}
        if not over:
            found |= {name: wanted * share / scale for name, share in open_.items()}
            wanted = 0.0
            break
        found |= {name: float(math.floor(left[name])) for name in over}
        wanted -= sum(found[name] for name in over)
        open_ = {name: share for name, share in open_.items() if name not in over}
    if wanted > 0.5:
        raise DataError(
            f"{stage}.mixture: its sources can give {total - wanted:,.0f} of {total:,} rows within most_epochs. Raise "
            f"{stage}.mixture.most_epochs, lower {stage}.tokens, or add data."
        )
    whole = {name: math.floor(value + EXACT) for name, value in found.items()}
    missing = total - sum(whole.values())
    room = [name for name in sorted(found, key=lambda n: whole[n] - found[n]) if whole[name] + 1 <= left[name] + EXACT]
    for name in room[:missing]:
        whole[name] += 1
    return whole


def _cap(size: int, most: float | None) -> float:
    return math.inf if most is None and size else math.floor(size * (most or 0) + EXACT)


def _asked(name: str, phases: Sequence[tuple[float, Mapping[str, float]]]) -> float:
    """Return the share of all steps that a source was asked for over all phases."""
    begin, share = 0.0, 0.0
    for until, shares in phases:
        share += (until - begin) * shares.get(name, 0.0)
        begin = until
    return share


def _turns(lengths: Sequence[int]) -> np.ndarray:
    """Return the places of some lists, one behind the other, so that each is spread evenly and keeps its order."""
    import numpy as np

    return np.argsort(np.concatenate([(np.arange(n) + 0.5) / max(1, n) for n in lengths]), kind="stable")


def _ordered(size: int, number: int, rng: np.random.Generator) -> Any:
    """Return places below `size`, `number` in all, in ascending passes; the last one may skip some."""
    import numpy as np

    whole, rest = divmod(number, size) if size else (0, 0)
    return np.concatenate([*[np.arange(size)] * whole, np.sort(rng.permutation(size)[:rest])]).astype(np.int64)
