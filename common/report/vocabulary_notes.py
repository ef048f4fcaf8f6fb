"""What the card says of stages that extend the vocabulary: the tokens of held-out texts before and after.

Usage: `parts += vocabulary_notes(chain)`; none where a chain has no such stage.

It prints what manifests say. Bits per byte, which do not depend on the tokens, are in the card's tables of the exam.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.report.chain import Chain
from common.report.markdown import code, number, percent, plain, table

Facts = Mapping[str, Any]
NOTE = (
    "Tokens are those of the exam's held-out texts, cut by the tokenizer before and after. Replaced is the share of "
    "the old tokens that new ones stand for; all else is cut as before. Bits per byte divide by the bytes of the same "
    "texts, so they can be compared over the change, and tokens or losses per token cannot."
)


def vocabulary_notes(chain: Chain) -> list[str]:
    """Return how many tokens each such stage has added, and a table of how texts are cut."""
    parts = []
    for name, manifest in chain.manifests.items():
        metrics = manifest.get("metrics") or {}
        if "cut" not in metrics:
            continue
        parts.append(_sentence(name, metrics))
        parts.append(table(list(metrics["cut"]), _COLUMNS, text=1))
    parts += [NOTE] if parts else []
    parts += [
        f"`{one.name}` trained {number(one.metrics['learned_parameters'])} parameters, the rows of tokens alone."
        for one in chain.checkpoints
        if one.metrics.get("learned_parameters") and one.settings.get("train_only") == "embeddings"
    ]
    return ["### Vocabulary", *parts] if parts else []


def _sentence(name: str, metrics: Facts) -> str:
    ids, rows = metrics["ids"], metrics["rows"]
    shown = ", ".join(code(example.replace("`", "'")) for example in metrics["examples"])
    return (
        f"`{name}` added {number(metrics['added'])} tokens to a tokenizer of {number(ids['before'])}, which now has "
        f"{number(ids['after'])}; the embedding has {number(rows['after'])} rows, and had {number(rows['before'])}."
        + (f" Among the new tokens: {shown}." if shown else "")
    )


def _ratio(key: str, per: str) -> Any:
    return lambda cut: f"{cut[key] / cut[per]:.3f}" if cut[per] else "-"


_COLUMNS = {
    "Held-out texts": lambda cut: plain(f"{cut['side']}, {cut['language']}" if cut.get("language") else cut["side"]),
    "Characters": lambda cut: number(cut["characters"]),
    "Tokens before": lambda cut: number(cut["before"]),
    "after": lambda cut: number(cut["after"]),
    "Per character before": _ratio("before", "characters"),
    "after ": _ratio("after", "characters"),
    "Per word before": _ratio("before", "words"),
    "after  ": _ratio("after", "words"),
    "Per byte before": _ratio("before", "bytes"),
    "after   ": _ratio("after", "bytes"),
    "Replaced": lambda cut: percent(cut["replaced"]),
}
