"""Two figures of a chain: the training loss of every stage, and the exam score of every checkpoint.

Usage: `draw_loss(chain, out / "loss.png", work=work)` and `draw_exam(chain, out / "exam.png", work=work)`.

It draws on its own canvas: no window, no global pyplot state, nothing written outside `work` and the target. The
numbers are those of `common.report.chain`; nothing is smoothed but the line that says so.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.report.chain import SIDES, Chain, Checkpoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 8.0  # inches; at 200 dots per inch 1,600 px
DPI = 200
# Okabe and Ito (2008): told apart with any colour vision, and in grey print by their lightness.
COLOURS = {"general": "#0072B2", "domain": "#D55E00", "loss": "#2F3E4E"}
MARKERS = {"general": "o", "domain": "s"}
INK, FAINT, GRID = "#222222", "#777777", "#E4E4E4"
STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "axes.edgecolor": "#AAAAAA",
    "axes.linewidth": 0.8,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
}
SMOOTHED_FROM = 24  # points; fewer are drawn as they are
PANELS_PER_ROW = 3
LABEL_ROOM = 90  # characters that fit below the exam figure in one line
LOSS_NOTE = (
    "Thin: as logged; thick: moving average. Scales differ: fine-tuning counts the assistant's tokens only, "
    "preference tuning has a loss of its own."
)


def draw_loss(chain: Chain, path: Path, *, work: Path) -> None:
    """Draw one panel per training stage: loss against the tokens seen in that stage."""
    trained = [c for c in chain.checkpoints if c.curve.loss]
    with drawing(work) as new_figure:
        columns = min(PANELS_PER_ROW, max(1, len(trained)))
        num_rows = max(1, math.ceil(len(trained) / columns))
        figure = new_figure(WIDTH, 0.95 + 2.15 * num_rows)
        if not trained:
            write_note(figure, "No stage of this chain logged a training loss.")
        for index, checkpoint in enumerate(trained):
            axes = figure.add_subplot(num_rows, columns, index + 1)
            _draw_curve(axes, checkpoint)
            if index % columns == 0:
                axes.set_ylabel("Loss")
            if index + columns >= len(trained):
                axes.set_xlabel("Tokens seen in this stage")
        if trained:
            figure.supxlabel(LOSS_NOTE, x=0.01, ha="left", fontsize=7.5, color=FAINT)
        figure.suptitle("Training loss of every stage", x=0.01, ha="left", fontsize=11.5, fontweight="bold")
        figure.savefig(path, dpi=DPI, metadata={"Software": None})


def draw_exam(chain: Chain, path: Path, *, work: Path) -> None:
    """Draw both scores of every checkpoint with their 95% intervals, in pipeline order, and the chance level."""
    with drawing(work) as new_figure:
        figure = new_figure(WIDTH, 4.3)
        if not any(c.score(side) for c in chain.checkpoints for side in SIDES):
            write_note(figure, "No checkpoint of this chain sat an exam.")
        else:
            _fill_exam(figure.add_subplot(1, 1, 1), chain)
        figure.suptitle("Exam score of every checkpoint", x=0.01, ha="left", fontsize=11.5, fontweight="bold")
        figure.savefig(path, dpi=DPI, metadata={"Software": None})


def chance_level(chain: Chain, side: str) -> float | None:
    """Return the mean of 1 / number of choices over a side's questions, or None where it was not sat."""
    for checkpoint in chain.checkpoints:
        choices = [len(r["scores"]) for key, r in checkpoint.records.items() if key[0] == side and r.get("scores")]
        if choices:
            return sum(1.0 / n for n in choices) / len(choices)
    return None


def smooth(values: Sequence[float], width: int) -> list[float]:
    """Return the mean over a window of `width` values around each.

    The window shrinks to both sides at the start, so that a steep fall is not flattened, and to one side at the
    end, so that the last value is a mean too.
    """
    reaches = [min(width // 2, i) for i in range(len(values))]
    windows = [values[i - reach : i + reach + 1] for i, reach in enumerate(reaches)]
    return [sum(window) / len(window) for window in windows]


@contextlib.contextmanager
def drawing(work: Path) -> Iterator[Any]:
    """Give a function (width, height) -> figure under one style; matplotlib keeps its caches in `work`."""
    given = os.environ.get("MPLCONFIGDIR")
    os.environ["MPLCONFIGDIR"] = given or str(work)
    try:  # it is read once, while matplotlib is imported
        import matplotlib.style
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    finally:
        if given is None:
            del os.environ["MPLCONFIGDIR"]  # the work folder goes when the stage is done

    with matplotlib.style.context(["default", STYLE]):
        yield lambda width, height: Figure(
            figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06), facecolor="white"
        )


def write_note(figure: Figure, text: str) -> None:
    figure.text(0.5, 0.45, text, ha="center", va="center", color=FAINT)


def _draw_curve(axes: Axes, checkpoint: Checkpoint) -> None:
    tokens, loss = checkpoint.curve.tokens, checkpoint.curve.loss
    if len(loss) >= SMOOTHED_FROM:
        axes.plot(tokens, loss, color=COLOURS["loss"], linewidth=0.7, alpha=0.3)
        axes.plot(tokens, smooth(loss, len(loss) // 8), color=COLOURS["loss"], linewidth=1.7)
    else:
        axes.plot(tokens, loss, color=COLOURS["loss"], linewidth=1.5, marker="o", markersize=3)
    origin = f" ← {checkpoint.parent}" if checkpoint.parent else ""
    axes.set_title(f"{checkpoint.name}{origin}", loc="left", color=INK)
    axes.grid(axis="y")
    axes.xaxis.set_major_formatter(_token_format)
    axes.locator_params(axis="x", nbins=4)
    axes.locator_params(axis="y", nbins=5)
    axes.set_xlim(left=0)
    tail = loss[-max(1, len(loss) // 20) :]
    axes.annotate(
        f"ends at {sum(tail) / len(tail):.2f}",
        (1.0, 0.97),
        xycoords="axes fraction",
        ha="right",
        va="top",
        fontsize=8,
        color=FAINT,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
    )


def _token_format(value: float, _position: float = 0.0) -> str:
    """Return 1500000 as `1.5M`."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def _fill_exam(axes: Axes, chain: Chain) -> None:
    position = {c.name: float(i) for i, c in enumerate(chain.checkpoints)}
    for side, shift in zip(SIDES, (-0.11, 0.11), strict=True):
        scored = [(c, c.score(side)) for c in chain.checkpoints]
        for checkpoint, score in scored:
            parent = chain[checkpoint.parent].score(side) if checkpoint.parent in chain and checkpoint.parent else None
            if score is not None and parent is not None:
                x = [position[str(checkpoint.parent)] + shift, position[checkpoint.name] + shift]
                y = [parent["score"], score["score"]]
                axes.plot(x, y, color=COLOURS[side], linewidth=1.0, alpha=0.35, zorder=1)
        _draw_side(axes, side, [(position[c.name] + shift, score) for c, score in scored if score is not None], shift)
    _draw_chance(axes, chain)
    _name_checkpoints(axes, chain)
    axes.set_xlim(-0.5, len(position) - 0.5)
    axes.set_ylim(0.0, 1.04)  # room for a marker at 100%
    axes.set_yticks([0.0, 0.25, 0.5, 0.75, 1.0], ["0%", "25%", "50%", "75%", "100%"])
    axes.set_ylabel("Right answers, with 95% interval")
    axes.grid(axis="y")
    axes.tick_params(axis="x", length=0)
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: labels[i].startswith("Chance"))  # lines come first by default
    handles, labels = [handles[i] for i in order], [labels[i] for i in order]
    axes.legend(handles, labels, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=4, columnspacing=1.5, fontsize=8.5)


def _draw_side(axes: Axes, side: str, points: Sequence[tuple[float, dict[str, Any]]], shift: float) -> None:
    """Draw one side's scores with their intervals, and each value beside its point, away from the other side."""
    from matplotlib.patheffects import withStroke

    if not points:
        return
    x = [p for p, _ in points]
    y = [s["score"] for _, s in points]
    below = [max(0.0, s["score"] - s["low"]) for _, s in points]
    above = [max(0.0, s["high"] - s["score"]) for _, s in points]
    label = f"{side.capitalize()} exam (n = {points[0][1]['n']:,})"
    axes.errorbar(
        x,
        y,
        yerr=[below, above],
        label=label,
        fmt=MARKERS[side],
        color=COLOURS[side],
        markersize=5.5,
        elinewidth=1.4,
        capsize=3,
    )
    for px, score in points:
        axes.annotate(
            f"{100 * score['score']:.0f}",
            (px, score["score"]),
            xytext=(6 if shift > 0 else -6, 0),
            textcoords="offset points",
            ha="left" if shift > 0 else "right",
            va="center",
            fontsize=8,
            color=COLOURS[side],
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )


def _draw_chance(axes: Axes, chain: Chain) -> None:
    """Draw the level of guessing: one line, or one per side where the questions have other numbers of choices."""
    levels = {side: chance_level(chain, side) for side in SIDES}
    known = {side: level for side, level in levels.items() if level is not None}
    same = len({round(level, 3) for level in known.values()}) == 1
    for side, level in list(known.items())[: 1 if same else 2]:
        colour = "#555555" if same else COLOURS[side]
        dashes = (0, (5, 4))
        axes.axhline(level, color=colour, linewidth=1.0, linestyle=dashes, zorder=0.9, label=f"Chance ({level:.0%})")


def _name_checkpoints(axes: Axes, chain: Chain) -> None:
    """Write each checkpoint and its origin below its points; turned where they would run into each other."""
    origins = [f"from {c.parent}" if c.parent else "start" for c in chain.checkpoints]
    names = [c.name for c in chain.checkpoints]
    ticks = range(len(names))
    if max(map(len, names + origins)) * len(names) <= LABEL_ROOM:
        axes.set_xticks(ticks, [f"{name}\n{origin}" for name, origin in zip(names, origins, strict=True)])
    else:
        labels = [f"{name} ({origin})" for name, origin in zip(names, origins, strict=True)]
        axes.set_xticks(ticks, labels, rotation=25, ha="right", rotation_mode="anchor")
