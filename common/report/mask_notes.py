"""What the card says of RL pre-training: the papers, what is ours, and how masks and predictions went.

Usage: `parts += mask_notes(chain)`; none where a chain has no such stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from common.report.chain import Chain
from common.report.markdown import MISSING, number, percent, table

PAPERS = (
    "PretrainZero (arXiv 2512.03442): one model masks spans of the domain's texts and predicts them. A prediction "
    "earns 1 where it is exact; a mask earns 1 minus the share of right predictions, and 0 where none is right or it "
    "is not valid. Predictions of a mask that all earn the same are dropped (DAPO, arXiv 2503.14476). Ours: masks of a "
    "paragraph that all earn the same are dropped too, the prompts, the form of random spans, that every occurrence of "
    "a span is masked, and that answers are used once."
)


def mask_notes(chain: Chain) -> list[str]:
    """Return sentences and a table over the steps for each stage that was pre-trained by RL."""
    notes = [
        part
        for name, manifest in chain.manifests.items()
        if (facts := manifest.get("metrics", {}).get("masks")) and facts["course"]
        for part in (_note(name, manifest["metrics"], facts), _course(facts))
    ]
    return ["### RL pre-training", PAPERS, *notes] if notes else []


def _note(name: str, metrics: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    steps, random = metrics["steps"], facts["random_steps"]
    spans = "All masks are random spans" if random >= steps else "The model wrote all masks"
    if 0 < random < steps:
        spans = f"The masks of the first {number(random)} steps are random spans, then the model wrote them"
    read = f"`{name}` read {number(metrics['paragraphs'])} paragraphs over {number(steps)} steps. {spans}."
    if "predicted" not in facts:
        return f"{read} No mask was valid, so nothing was predicted."
    return (
        f"{read} {percent(facts['predicted'])} of all predictions were right. {percent(facts['invalid'])} of the masks "
        f"were not valid. Of the valid ones {percent(facts['all_right'])} were predicted right each time and "
        f"{percent(facts['all_wrong'])} never; nothing was learned from these predictions. A mask hides "
        f"{facts['words']:.1f} words on average."
    )


def _course(facts: Mapping[str, Any]) -> str:
    return table(
        facts["course"],
        {
            "To step": lambda row: number(row["step"]),
            "Predictions right": _share("predicted"),
            "Always right (dropped)": _share("all_right"),
            "Never right (dropped)": _share("all_wrong"),
            "Masks not valid": _share("invalid"),
            "Mean reward of masks": lambda row: f"{row['earned']:.2f}",
            "Words of a mask": lambda row: f"{row['words']:.1f}" if "words" in row else MISSING,
            "Not stopped": _share("unstopped"),
        },
        text=0,
    )


def _share(key: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: percent(row[key]) if key in row else MISSING
