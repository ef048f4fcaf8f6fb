"""The figures of a chain: training losses, exam scores, and rewards.

Usage: `draw_loss(chain, out / "loss.png", work=work)`; `draw_exam` and `draw_rewards` have the same arguments.

They draw on their own canvas: no window, no global pyplot state, nothing written outside `work` and the target. Only
lines that say so are smoothed.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.report.chain import SIDES, Chain, Checkpoint
from common.report.long_context import has_intervals, lengths_of, reach
from common.report.long_context import measured as long_inputs
from common.report.sequence import bits_of, measured
from common.report.stage_notes import reward_models, rewarded

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 8.0  # inches; at 200 dots per inch 1,600 px
DPI = 200
# Okabe and Ito (2008): distinct with any colour vision, and in grey print by their lightness.
COLOURS = {"general": "#0072B2", "domain": "#D55E00", "loss": "#2F3E4E"}
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # of the same authors
MARKERS = {"general": "o", "domain": "s"}
INK, FAINT, GRID = "#222222", "#777777", "#E4E4E4"
STYLE: dict[str, Any] = {
    "font.size": 9, "axes.titlesize": 9.5, "axes.labelsize": 9, "axes.edgecolor": "#AAAAAA", "axes.linewidth": 0.8,
    "axes.labelcolor": INK, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "text.color": INK, "xtick.color": FAINT, "ytick.color": FAINT, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "text.parse_math": False, "grid.color": GRID, "grid.linewidth": 0.8, "legend.frameon": False,
}  # fmt: skip
SMOOTHED_FROM = 24  # points; fewer are drawn as they are
LABEL_ROOM = 90  # characters that fit below the exam figure in one line
LOSS_NOTE = (
    "Thin: as logged; thick: moving average. Scales differ: fine-tuning counts the assistant's tokens only, "
    "preference tuning has a loss of its own."
)
CALIBRATION_NOTE = "Dashed: perfect calibration. Large points: many pairs.\n"
STEPS_NOTE = (
    "Grey: mean reward of the sampled answers at each step, smoothed. Orange: of greedy answers to held-out prompts.\n"
    "Blue: the share of the greedy answers that is right. Dotted: the step whose weights were kept after an early stop."
)
Panel = Callable[["Axes"], None]


def draw_loss(chain: Chain, path: Path, *, work: Path) -> None:
    """Draw one panel per training stage: loss against the tokens seen in that stage."""
    trained = [c for c in chain.checkpoints if c.curve.loss]
    height = 0.95 + 2.15 * max(1, math.ceil(len(trained) / 3))
    with _figure(path, work, "Training loss of every stage", height) as figure:
        if not trained:
            _write_note(figure, "No stage of this chain logged a training loss.")
        else:
            _fill(figure, [partial(_draw_curve, checkpoint=c) for c in trained], 3, LOSS_NOTE)
            for axes in figure.axes[-3:]:
                axes.set_xlabel("Tokens seen in this stage")
            for axes in figure.axes[::3]:
                axes.set_ylabel("Loss")


def draw_rewards(chain: Chain, path: Path, *, work: Path) -> None:
    """Draw a calibration panel per reward model and a panel of rewards per stage that trained on them."""
    models = [partial(_draw_calibration, name=name, metrics=m) for name, m in reward_models(chain).items()]
    stages = [partial(_draw_steps, checkpoint=c) for c in rewarded(chain)]
    with _figure(path, work, "Rewards", 0.9 + 2.6 * math.ceil(len(models + stages) / 2)) as figure:
        note = (CALIBRATION_NOTE if models else "") + (STEPS_NOTE if stages else "")
        _fill(figure, [*models, *stages], 2, note.strip())


def draw_exam(chain: Chain, path: Path, *, work: Path) -> None:
    """Draw both scores of examined checkpoints with their 95% intervals, in pipeline order, and the chance level."""
    examined = tuple(c for c in chain.checkpoints if any(c.score(side) for side in SIDES))
    with _figure(path, work, "Exam score of every model", 4.3) as figure:
        if examined:
            _fill_exam(figure.add_subplot(1, 1, 1), replace(chain, checkpoints=examined))
        else:
            _write_note(figure, "No model of this chain has an exam.")


def draw_domains(chain: Chain, path: Path, *, work: Path) -> None:
    """Draw the bits per byte of each domain's held-out text along a sequence, and where its own text was read."""
    found = measured(chain)
    with _figure(path, work, "Every checkpoint of the sequence on every domain", 3.6) as figure:
        if found is None:
            _write_note(figure, "The published model has not read all domains one after the other.")
            return
        axes, names = figure.add_subplot(1, 1, 1), [c.name for c in found.line]
        for domain, colour, marker in zip(chain.domains, itertools.cycle(CYCLE), itertools.cycle("osD^v")):
            values = [math.nan if (v := bits_of(c, domain)) is None else v for c in found.line]
            axes.plot(names, values, color=colour, marker=marker, label=domain)
            own = 1 + chain.domains.index(domain)
            axes.plot([names[own]], [values[own]], marker="o", markersize=12, fillstyle="none", color=colour)
        axes.set_ylabel("Bits per byte of held-out text")
        axes.grid(axis="y")
        axes.tick_params(axis="x", length=0)
        axes.legend(loc="upper right", fontsize=8.5)
        figure.supxlabel("A ring marks the checkpoint that has just read the domain.", x=0.01, ha="left", fontsize=7.5)


def draw_long_context(chain: Chain, path: Path, *, work: Path) -> None:
    """Draw a panel of the needle test for each length, by depth, and one of bits per byte by position for each side."""
    found = long_inputs(chain)
    lengths, sides = lengths_of(found), [side for side in SIDES if reach(found, side)]
    panels = [partial(_draw_needle, found=found, length=length) for length in lengths]
    panels += [partial(_draw_positions, found=found, side=side) for side in sides]
    with _figure(path, work, "Long inputs", 0.9 + 2.4 * max(1, math.ceil(len(panels) / 3))) as figure:
        if not panels:
            _write_note(figure, "No model could be asked anything as long.")
            return
        drawn = ["Needle: with 95% intervals; dashed: chance."] if lengths else []
        drawn += [
            f"{side.capitalize()} text: {'with 95% intervals' if has_intervals(found, side) else 'no intervals'}, "
            f"up to {reach(found, side):,} tokens."
            for side in sides
        ]
        _fill(figure, panels, 3, " ".join(drawn))
        figure.axes[0].legend(loc="upper center", ncols=2, fontsize=7, columnspacing=1.0)


def _draw_needle(axes: Axes, found: Sequence[Checkpoint], length: int) -> None:
    for one, colour in zip(found, itertools.cycle(CYCLE), strict=False):
        needle = one.exam["long_context"]["needle"]
        cells = [cell for cell in needle if cell["length"] == length and cell["depth"] is not None]
        _with_intervals(axes, [cell["depth"] for cell in cells], cells, "score", one.name, colour)
    axes.axhline(1 / found[0].exam["long_context"]["choices"], color=FAINT, linewidth=0.9, linestyle=(0, (5, 4)))
    axes.set_title(f"Needle in {length:,} tokens", loc="left")
    axes.set_xlabel("Depth (1: at the end)")
    axes.set_ylabel("Share found")
    axes.set_ylim(-0.02, 1.04)
    axes.grid(axis="y")


def _draw_positions(axes: Axes, found: Sequence[Checkpoint], side: str) -> None:
    for one, colour in zip(found, itertools.cycle(CYCLE), strict=False):
        curve = one.exam["long_context"]["positions"].get(side) or []
        middles = [(bucket["first"] + bucket["last"]) / 2 for bucket in curve]
        _with_intervals(axes, middles, curve, "bits_per_byte", one.name, colour)
    axes.set_title(f"{side.capitalize()} held-out text", loc="left")
    axes.set_xlabel("Position, in tokens")
    axes.set_ylabel("Bits per byte")
    axes.grid(axis="y")


def _with_intervals(
    axes: Axes, at: Sequence[float], values: Sequence[Mapping[str, Any]], key: str, label: str, colour: str
) -> None:
    """Plot values with their intervals, where they have some."""
    below, above = (
        [0.0 if value["low"] is None else abs(value[key] - value[end]) for value in values] for end in ("low", "high")
    )
    style: dict[str, Any] = {"linewidth": 1.3, "elinewidth": 0.9, "markersize": 3.5, "capsize": 2}
    axes.errorbar(
        at, [value[key] for value in values], yerr=[below, above], fmt="o-", color=colour, label=label, **style
    )


def smooth(values: Sequence[float], width: int) -> list[float]:
    """Return the mean over a window of `width` values around each.

    The window shrinks to both sides at the start, so that a steep fall is not flattened, and to one side at the
    end, so that the last value is a mean too.
    """
    reaches = [min(width // 2, i) for i in range(len(values))]
    windows = [values[i - reach : i + reach + 1] for i, reach in enumerate(reaches)]
    return [sum(window) / len(window) for window in windows]


@contextlib.contextmanager
def _figure(path: Path, work: Path, title: str, height: float) -> Iterator[Figure]:
    """Give an empty figure and save it; matplotlib keeps its caches in `work`."""
    given = os.environ.get("MPLCONFIGDIR")
    os.environ["MPLCONFIGDIR"] = given or str(work)
    try:  # it is read once, while matplotlib is imported
        import matplotlib.style
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    finally:
        if given is None:
            del os.environ["MPLCONFIGDIR"]  # the work folder is removed after the stage

    with matplotlib.style.context(["default", STYLE]):
        layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06)
        figure = Figure(figsize=(WIDTH, height), layout=layout, facecolor="white")
        yield figure
        figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
        figure.savefig(path, dpi=DPI, metadata={"Software": None})


def _fill(figure: Figure, panels: Sequence[Panel], per_row: int, note: str) -> None:
    """Draw the panels row by row, and a note below them."""
    columns = min(per_row, len(panels))
    for number, draw in enumerate(panels, 1):
        draw(figure.add_subplot(math.ceil(len(panels) / columns), columns, number))
    figure.supxlabel(note, x=0.01, ha="left", fontsize=7.5, color=FAINT)


def _write_note(figure: Figure, text: str) -> None:
    figure.text(0.5, 0.45, text, ha="center", va="center", color=FAINT)


def _plot_smoothed(axes: Axes, x: Sequence[float], y: Sequence[float], **style: Any) -> None:
    """Plot a moving average over the thin line of all values; few values as they are."""
    if len(y) >= SMOOTHED_FROM:
        axes.plot(x, y, color=COLOURS["loss"], linewidth=0.7, alpha=0.3)
        y, style = smooth(y, len(y) // 8), {"linewidth": 1.7, **style, "marker": None}
    axes.plot(x, y, color=COLOURS["loss"], **{"linewidth": 1.5, "markersize": 3, **style})


def _draw_curve(axes: Axes, checkpoint: Checkpoint) -> None:
    from matplotlib.ticker import EngFormatter

    tokens, loss = checkpoint.curve.tokens, checkpoint.curve.loss
    _plot_smoothed(axes, tokens, loss, marker="o")
    origin = f" ← {checkpoint.parent}" if checkpoint.parent else ""
    axes.set_title(f"{checkpoint.name}{origin}", loc="left", color=INK)
    axes.grid(axis="y")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 1.5M
    axes.locator_params(axis="x", nbins=4)
    axes.locator_params(axis="y", nbins=5)
    axes.set_xlim(left=0)
    tail = loss[-max(1, len(loss) // 20) :]
    end = sum(tail) / len(tail)
    height, side = (0.97, "top") if end <= sum(axes.get_ylim()) / 2 else (0.03, "bottom")  # away from the curve's end
    axes.annotate(
        f"ends at {end:.2f}" if end >= 0.1 else f"ends at {end:.2g}", (1.0, height), xycoords="axes fraction",
        ha="right", va=side, fontsize=8, color=FAINT, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
    )  # fmt: skip


def _fill_exam(axes: Axes, chain: Chain) -> None:
    from matplotlib.ticker import MultipleLocator, PercentFormatter

    for side, shift in zip(SIDES, (-0.11, 0.11), strict=True):
        points = {c.name: (i + shift, s) for i, c in enumerate(chain.checkpoints) if (s := c.score(side)) is not None}
        for checkpoint in chain.checkpoints:
            if checkpoint.name in points and checkpoint.parent in points:
                (x0, before), (x1, after) = points[checkpoint.parent], points[checkpoint.name]
                axes.plot([x0, x1], [before["score"], after["score"]], color=COLOURS[side], linewidth=1.0, alpha=0.35)
        if points:
            _draw_side(axes, side, list(points.values()), "left" if shift > 0 else "right")
    _draw_chance(axes, chain)
    _name_checkpoints(axes, chain)
    axes.set_xlim(-0.5, len(chain.checkpoints) - 0.5)
    axes.set_ylim(0.0, 1.04)  # room for a marker at 100%
    axes.yaxis.set_major_locator(MultipleLocator(0.25))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylabel("Right answers, with 95% interval")
    axes.grid(axis="y")
    axes.tick_params(axis="x", length=0)
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: labels[i].startswith("Chance"))  # lines come first by default
    handles, labels = [handles[i] for i in order], [labels[i] for i in order]
    axes.legend(handles, labels, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=4, columnspacing=1.5, fontsize=8.5)


def _draw_side(axes: Axes, side: str, points: Sequence[tuple[float, Mapping[str, Any]]], align: str) -> None:
    """Draw one side's scores with their intervals, and each value next to its point, away from the other side."""
    from matplotlib.patheffects import withStroke

    colour = COLOURS[side]
    below = [max(0.0, s["score"] - s["low"]) for _, s in points]
    above = [max(0.0, s["high"] - s["score"]) for _, s in points]
    axes.errorbar(
        [x for x, _ in points], [s["score"] for _, s in points], yerr=[below, above], fmt=MARKERS[side], color=colour,
        label=f"{side.capitalize()} exam (n = {points[0][1]['n']:,})", markersize=5.5, elinewidth=1.4, capsize=3,
    )  # fmt: skip
    for x, score in points:
        axes.annotate(
            f"{100 * score['score']:.0f}", (x, score["score"]), xytext=(6 if align == "left" else -6, 0),
            textcoords="offset points", ha=align, va="center", fontsize=8, color=colour,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip


def _draw_chance(axes: Axes, chain: Chain) -> None:
    """Draw the chance level: one line, or one per side where they differ."""
    levels = {side: chain.chance(side) for side in SIDES}
    known = {side: level for side, level in levels.items() if level is not None}
    same = len({round(level, 3) for level in known.values()}) == 1
    for side, level in list(known.items())[: 1 if same else 2]:
        colour = "#555555" if same else COLOURS[side]
        dashes = (0, (5, 4))
        axes.axhline(level, color=colour, linewidth=1.0, linestyle=dashes, zorder=0.9, label=f"Chance ({level:.0%})")


def _name_checkpoints(axes: Axes, chain: Chain) -> None:
    """Write each checkpoint and its parent below its points; turned where the labels would overlap."""
    labels = [(c.name, f"from {c.parent}" if c.parent else "start") for c in chain.checkpoints]
    ticks = range(len(labels))
    if max(len(text) for label in labels for text in label) * len(labels) <= LABEL_ROOM:
        axes.set_xticks(ticks, [f"{name}\n{origin}" for name, origin in labels])
    else:
        texts = [f"{name} ({origin})" for name, origin in labels]
        axes.set_xticks(ticks, texts, rotation=25, ha="right", rotation_mode="anchor")


def _draw_calibration(axes: Axes, name: str, metrics: Mapping[str, Any]) -> None:
    sure, right, num_pairs = ([b[key] for b in metrics["calibration"]] for key in ("sure", "right", "n"))
    sizes = [12 + 70 * n / max(num_pairs) for n in num_pairs]
    axes.plot([0.5, 1.0], [0.5, 1.0], color=FAINT, linewidth=0.9, linestyle=(0, (5, 4)))
    axes.plot(sure, right, color=COLOURS["domain"], linewidth=1.3)
    axes.scatter(sure, right, s=sizes, color=COLOURS["domain"], zorder=3)
    axes.set_title(f"{name}: calibration on {metrics['ranking_accuracy']['n']:,} held-out pairs", loc="left")
    axes.set_xlabel("Confidence in its ranking")
    axes.set_ylabel("Share ranked right")
    axes.set_xlim(0.48, 1.02)
    axes.set_ylim(min(0.45, min(right) - 0.05), 1.04)
    axes.grid(axis="y")


def _draw_steps(axes: Axes, checkpoint: Checkpoint) -> None:
    metrics = checkpoint.metrics
    looks = metrics["looks"]
    at = [look["step"] for look in looks]
    style: dict[str, Any] = {"linewidth": 1.4, "markersize": 4}
    _plot_smoothed(axes, list(checkpoint.rewards), list(checkpoint.rewards.values()), alpha=0.6)
    axes.plot(at, [look["reward"] for look in looks], color=COLOURS["domain"], marker="s", **style)
    axes.set_title(f"{checkpoint.name} ← {checkpoint.parent}", loc="left")
    axes.set_xlabel("Steps")
    axes.locator_params(axis="x", integer=True)
    axes.set_ylabel("Mean reward")
    axes.grid(axis="y")
    if "right" in looks[0]:
        right = axes.twinx()
        right.plot(at, [look["right"] for look in looks], color=COLOURS["general"], marker="o", **style)
        right.set_ylim(0.0, 1.04)
        right.set_yticks([0.0, 0.5, 1.0], ["0%", "50%", "100%"])
        right.set_ylabel("Right answers", color=COLOURS["general"])
        right.spines["right"].set_visible(True)
    if metrics.get("stopped"):
        axes.axvline(metrics["kept"], color=FAINT, linewidth=0.9, linestyle=(0, (2, 3)))
