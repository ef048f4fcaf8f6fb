"""What stages would drop of their rows by shape alone, known before any of them begins: said, or stopped by the limits.

Usage: `check_losses(resolved, nodes, corpus, sizes)`; `for line in losses(...): print(line)`.

Shapes need no tokenizer, so a plan knows these. What a chat template refuses and what is too long is
`common.engine.preflight.trial`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from common.config.base import Limits
from common.config.kinds import kind_of
from common.config.node import Node
from common.config.resolve import EMBEDDED, Resolved
from common.config.validation import report
from common.data.accounting import RowCount, check_limits
from common.data.corpus import Corpus
from common.data.sizes import RowSizes, Sizes
from common.errors import ContractError, DataError
from common.stage import data_roles

SURE = 2  # times a limit: a sample that loses more stops a run, one that loses less is a warning


def losses(resolved: Resolved, nodes: Sequence[Node], corpus: Corpus, sizes: RowSizes) -> list[str]:
    """Return a line for each source that stages train on and that loses or changes rows by their shape."""
    roles = dict.fromkeys(role for node in nodes for role in _training_roles(node, resolved, corpus))
    found = [(role, rows) for role in roles if (rows := sizes.of(role)) is not None]
    return [
        line
        for role, rows in found
        for count in rows.counts
        if (line := describe(count, role, "" if rows.whole else "read in part"))
    ]


def check_losses(resolved: Resolved, nodes: Sequence[Node], corpus: Corpus, sizes: RowSizes) -> list[str]:
    """Stop where rows cannot be read, or a stage would lose more of them by their shape than its limits allow.

    Returns what a sample makes likely. Raises DataError and ContractError as the stage itself would.
    """
    if resolved.config.data == EMBEDDED:
        return []
    roles = {node.name: _training_roles(node, resolved, corpus) for node in nodes}
    known = {role: sizes.of(role) for found in roles.values() for role in found}
    if problems := list(dict.fromkeys(sizes.problems.values())):
        raise DataError(report(f"The data of '{corpus.domain_title}'", problems) if len(problems) > 1 else problems[0])
    doubts = []
    for node in nodes:
        settings = resolved.config.stages[node.name]
        found = [(role, sizes_of) for role in roles[node.name] if (sizes_of := known[role]) is not None]
        if found and (limits := getattr(settings, "limits", None)) is not None:
            counts = [scaled(*one) for _, rows in found for one in zip(rows.counts, rows.times, strict=True)]
            doubts += judge(counts, limits, node.name, next((part for _, rows in found if (part := _part(rows))), ""))
    return doubts


def judge(counts: Iterable[RowCount], limits: Limits, stage: str, part: str = "") -> list[str]:
    """Hold the losses of a stage against its limits. `part` says what was read, where that is not all.

    A part stops the stage only where it loses far more than the limit. Else what it says is returned as a warning.
    Raises ContractError.
    """
    counts = list(counts)
    try:
        check_limits(counts, limits, stage)
    except ContractError as error:
        if not part:
            raise
        doubled = {name: min(1.0, SURE * share) for name, share in limits.model_dump().items()}
        try:
            check_limits(counts, limits.model_copy(update=doubled), stage)
        except ContractError:
            raise ContractError(f"{error} Seen so {part}.") from error
        return [f"{error} Seen so {part}; the stage stops if it is the same for all."]
    return []


def scaled(count: RowCount, times: float) -> RowCount:
    """Return the account of a source whose rows are used some times over."""
    if times == 1:
        return count
    dropped = {reason: round(number * times) for reason, number in count.dropped.items()}
    joined = round(count.joined * times)
    return replace(count, rows_in=round(count.rows_in * times), dropped=dropped, joined=joined)


def describe(count: RowCount, label: str, part: str = "") -> str:
    """Return how many rows a source has, and how many are dropped or changed; empty where all are used as they are.

    `part` says how far it was read, where that is not all.
    """
    parts = [f"{count.num_dropped:,} dropped ({count.losses})"] if count.dropped else []
    parts += [f"{number:,} {what}" for what, number in sorted(count.changed.items())]
    rows = f"{count.rows_in:,} rows {part}".rstrip()
    return f"{label}: source '{count.source}': {rows}, {', '.join(parts)}" if parts else ""


def _training_roles(node: Node, resolved: Resolved, corpus: Corpus) -> list[str]:
    """Return the roles of a stage whose rows it learns from, and not those that it is examined by."""
    if resolved.config.data == EMBEDDED:
        return []
    settings, kind = resolved.config.stages[node.name], kind_of(node.kind)
    if kind.makes == "report" or (kind.starts and resolved.config.model.path is not None):
        return []
    guards = corpus.exam_roles(kind.roles[0]) if kind.roles else ()
    return [role for role in data_roles(node.kind, corpus, settings, sampled=node.sampled) if role not in guards]


def _part(found: Sizes) -> str:
    """Say what was read of a role, where that is not all."""
    if found.whole:
        return ""
    read = sum(count.rows_in - count.joined for count in found.counts)
    return f"in the first {read:,} of about {found.rows:,} rows"
