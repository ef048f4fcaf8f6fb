"""What the card says of stages that change a model's shape: the method, its paper, sizes, and what of it learns.

Usage: `parts += growth_notes(chain)`; none where a chain has no such stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.evaluation.comparison import Comparison, TextComparison
from common.report.chain import SIDES, Chain, Checkpoint
from common.report.comparisons import exam_changes, find
from common.report.markdown import change_interval, number

PAPERS = {
    "llama_pro": "copies of layers that begin by adding nothing, evenly spread (LLaMA Pro, arXiv 2401.02415)",
    "adept": "copies of the layers that general text needs least, which begin by adding nothing (ADEPT, arXiv "
    "2510.10071)",
    "depth": "layers stretched over a deeper model (AquilaMoE, arXiv 2408.06567)",
    "width": "more neurons and heads, copied from those that were there (bert2BERT, arXiv 2110.07143)",
    "control_llm": "copies beside frozen layers, on the same input, equal at first (Control LLM, arXiv 2501.10979)",
    "upcycle": "equal experts in the place of each feed-forward layer (sparse upcycling, arXiv 2212.05055)",
}


def growth_notes(
    chain: Chain, comparisons: Sequence[Comparison] = (), texts: Sequence[TextComparison] = ()
) -> list[str]:  # fmt: skip
    """Return a sentence for each stage that grew the model, trained what was added alone, or undid a growth."""
    notes = [
        _growth_note(name, manifest["metrics"]["growth"])
        for name, manifest in chain.manifests.items()
        if manifest.get("metrics", {}).get("growth")
    ]
    notes += [
        f"`{name}` measured the loss that is added on general text without each layer: "
        f"{', '.join(f'{one:.3f}' for one in found)} nats a token. It copied the layers "
        f"{', '.join(map(str, manifest['metrics']['copied']))}, counted from 0."
        for name, manifest in chain.manifests.items()
        if (found := manifest.get("metrics", {}).get("layer_importance"))
    ]
    notes += [
        f"`{one.name}` trained {number(one.metrics['learned_parameters'])} parameters, those of the added layers"
        f"{_tables(one.settings)} alone."
        for one in chain.checkpoints
        if one.metrics.get("learned_parameters") and one.settings.get("train_only") == "added"
    ]
    notes += [_collapse_note(one, comparisons, texts) for one in chain.checkpoints if one.metrics.get("collapse")]
    return ["### Growth", *notes] if notes else []


def _growth_note(name: str, facts: Mapping[str, Any]) -> str:
    promise = "as the method promises" if facts["preserving"] else "the method promises no equal logits"
    return (
        f"`{name}` grew the model from {number(facts['parameters_before'])} to {number(facts['parameters'])} "
        f"parameters and {facts['layers']} layers: {PAPERS[facts['method']]}. Its logits differ from those before by "
        f"{facts['difference']:.1g} of their range ({promise})."
    )


def _collapse_note(stage: Checkpoint, comparisons: Sequence[Comparison], texts: Sequence[TextComparison]) -> str:
    """Say what collapsing did, and what it cost against the stage before where both were examined."""
    facts, before = stage.metrics["collapse"], stage.parent
    means = ", ".join(f"{one:.2f}" for one in facts["mean_w"])
    told = (
        f"`{stage.name}` made plain layers of the pairs in `{before}`: {number(facts['parameters_before'])} to "
        f"{number(facts['parameters'])} parameters, weights by {facts['weights']} with the mean w of each pair "
        f"({means}). Its logits differ from those before by {facts['difference']:.1g} of their range."
    )
    costs = exam_changes(comparisons, before, stage.name)
    costs += [
        f"{change_interval(t.change, t.low, t.high)} bits per byte of {t.side} text"
        for side in SIDES
        if (t := find(texts, before, stage.name, side))
    ]
    if not costs:
        return f"{told} What that cost is not known: not both stages were examined."
    return f"{told} Collapsing changed {', '.join(costs)}."


def _tables(settings: Mapping[str, Any]) -> str:
    also = settings.get("train_also") or ()
    return f" and of {' and '.join(f'`{table}`' for table in also)}" if also else ""
