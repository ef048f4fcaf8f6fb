"""The figure about rewards: is a reward model as sure as it is right, and what rewards did over the steps.

Usage: `draw_rewards(chain, out / "rewards.png", work=work)`.

The numbers are those of the manifests and logs; style and canvas are those of `common.report.plots`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.report.chain import Chain, Checkpoint
from common.report.plots import COLOURS, DPI, FAINT, SMOOTHED_FROM, WIDTH, drawing, smooth
from common.report.rewards import reward_models, rewarded

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 2
NOTE = (
    "Grey: mean reward of the sampled answers, step by step, smoothed. Orange: of greedy answers to prompts that\n"
    "never trained. Blue: the share of these answers that is right."
)


def draw_rewards(chain: Chain, path: Path, *, work: Path) -> None:
    """Draw a calibration panel per reward model and a panel of rewards per stage that learned from them."""
    models, stages = reward_models(chain), rewarded(chain)
    columns = min(COLUMNS, len(models) + len(stages))
    num_rows = math.ceil((len(models) + len(stages)) / columns)
    with drawing(work) as new_figure:
        figure = new_figure(WIDTH, 0.8 + 2.6 * num_rows)
        for index, (name, metrics) in enumerate(models.items()):
            _draw_calibration(figure.add_subplot(num_rows, columns, index + 1), name, metrics)
        for index, checkpoint in enumerate(stages, len(models)):
            _draw_steps(figure.add_subplot(num_rows, columns, index + 1), checkpoint)
        if stages:
            figure.supxlabel(NOTE, x=0.01, ha="left", fontsize=7.5, color=FAINT)
        figure.suptitle("Rewards", x=0.01, ha="left", fontsize=11.5, fontweight="bold")
        figure.savefig(path, dpi=DPI, metadata={"Software": None})


def _draw_calibration(axes: Axes, name: str, metrics: Mapping[str, Any]) -> None:
    bins = metrics["calibration"]
    axes.plot([0.5, 1.0], [0.5, 1.0], color=FAINT, linewidth=0.9, linestyle=(0, (5, 4)))
    axes.plot([b["sure"] for b in bins], [b["right"] for b in bins], color=COLOURS["domain"], linewidth=1.3)
    most = max(b["n"] for b in bins)
    sizes = [12 + 70 * b["n"] / most for b in bins]
    axes.scatter([b["sure"] for b in bins], [b["right"] for b in bins], s=sizes, color=COLOURS["domain"], zorder=3)
    n = metrics["ranking_accuracy"]["n"]
    axes.set_title(f"{name}: calibration on {n:,} held-out pairs", loc="left")
    axes.set_xlabel("How sure it is of its ranking")
    axes.set_ylabel("How often it is right")
    axes.set_xlim(0.48, 1.02)
    axes.set_ylim(min(0.45, *(b["right"] - 0.05 for b in bins)), 1.04)
    axes.grid(axis="y")


def _draw_steps(axes: Axes, checkpoint: Checkpoint) -> None:
    metrics = checkpoint.manifest["metrics"]
    looks = metrics["looks"]
    steps, rewards = list(checkpoint.rewards), list(checkpoint.rewards.values())
    if len(rewards) >= SMOOTHED_FROM:
        axes.plot(steps, rewards, color=COLOURS["loss"], linewidth=0.7, alpha=0.25)
        rewards = smooth(rewards, len(rewards) // 8)
    axes.plot(steps, rewards, color=COLOURS["loss"], linewidth=1.5, alpha=0.6)
    at = [look["step"] for look in looks]
    axes.plot(at, [look["reward"] for look in looks], color=COLOURS["domain"], linewidth=1.5, marker="s", markersize=4)
    axes.set_title(f"{checkpoint.name} ← {checkpoint.parent}", loc="left")
    axes.set_xlabel("Steps")
    axes.set_ylabel("Mean reward")
    axes.grid(axis="y")
    if "right" in looks[0]:
        right = axes.twinx()
        right.plot(
            at, [look["right"] for look in looks], color=COLOURS["general"], linewidth=1.3, marker="o", markersize=4
        )
        right.set_ylim(0.0, 1.04)
        right.set_yticks([0.0, 0.5, 1.0], ["0%", "50%", "100%"])
        right.set_ylabel("Right answers", color=COLOURS["general"])
        right.spines["right"].set_visible(True)
    if metrics.get("stopped"):
        axes.axvline(metrics["kept"], color=FAINT, linewidth=0.9, linestyle=(0, (2, 3)))
