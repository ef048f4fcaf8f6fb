"""Counts of every row: read, dropped and why, cut, learned from.

Usage: `count = RowCount("medquad-cdc", "cpt")`; `count.drop("empty text")`; `check_limits(counts, limits, "cpt")`.

It only counts and compares. Who drops a row says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from common.config.base import Limits
from common.errors import ContractError
from common.models.rendering import NO_PLACE, REFUSED
from common.models.turns import ALL_CONTEXT, NOT_A_PREFIX

EQUAL_SCORES, REVERSED_SCORES = "equal scores", "rejected scores higher than chosen"
# Of documents: what is none of text, and what is text that cannot be read.
NOT_HTML, NO_MAIN_TEXT, BLANK_PAGE, NO_PAGE = "not HTML", "no main text", "a page without text", "no page was given"
REVISIT = "a revisit without content"
DAMAGED, ENCRYPTED, NO_TEXT, UNREADABLE_FONT = "damaged document", "encrypted", "no text", "unreadable font"
TOO_LARGE, TOO_SLOW = "too large a document", "too slow a document"
# Reasons that a setting or the data ask for: rows that are left out so are counted, but no limit is on them.
BY_CHOICE = frozenset({
    "pass rate out of range", "no pass rate", ALL_CONTEXT, EQUAL_SCORES, REVERSED_SCORES, NOT_HTML, NO_MAIN_TEXT,
    BLANK_PAGE, NO_PAGE, REVISIT,
})  # fmt: skip
BY_BLOCK = "block "  # begins the reasons of blocks that clean: they have limits of their own, `most`
WRONG_NUMBER, NOT_CSV = "wrong number of fields", "not valid CSV"
# Fields of a count that are stored only where they say something.
RARE = ("overlaps", "before", "cut_short", "joined", "again")
MOST_OVERLAPS = 100  # rows that repeat the exam, of each source, that are kept with both texts
_QUOTES = "Quote fields that hold the delimiter or line ends, or name the file's own way with delimiter: and quoting:"
_TEMPLATE = "The checkpoint's chat template may be the cause: try model.chat_template=plain (or chatml)"
# How reasons begin that `turns: fix` repairs; see `common.data.manifest.turn_order`.
ENDS_IN, STARTS_WITH, TWO_OF_ONE = "ends in a ", "starts with ", "two "
_FIX = "Repair the conversations, or set turns: fix in the source"
_OCR = "Run OCR over the documents, such as ocrmypdf"
_REMEDIES = {
    NO_TEXT: _OCR,
    UNREADABLE_FONT: _OCR,
    ENCRYPTED: "Save the documents without a password",
    DAMAGED: "Download or copy the documents again, or leave them out of path",
    ENDS_IN: _FIX,
    STARTS_WITH: _FIX,
    f"{TWO_OF_ONE}user turns": _FIX,
    f"{TWO_OF_ONE}assistant turns": _FIX,
    WRONG_NUMBER: _QUOTES,
    NOT_CSV: _QUOTES,
    REFUSED: _TEMPLATE,
    NO_PLACE: "Use a checkpoint whose chat template writes them, or leave such rows out with where",
    NOT_A_PREFIX: _TEMPLATE,
    "longer than sequence_length": "Raise sequence_length, or leave such rows out with longest",
    "longer than prompt_tokens": "Raise prompt_tokens, or leave such rows out with longest",
}


def is_by_choice(reason: str) -> bool:
    """Whether a setting or the data ask that rows are left out for a reason, so that no limit is on them."""
    return reason in BY_CHOICE or reason.startswith(BY_BLOCK)


def passes_of(epochs: float, cut_short: bool) -> str:
    """Return passes over a source for people; of one that was not read to its end only a bound is known."""
    return "at most 1" if cut_short else f"{epochs:.3g}"


@dataclass
class RowCount:
    """The rows of one source in one role. Rows kept apart as held-out belong to another role's count."""

    source: str
    role: str
    rows_in: int = 0  # read, before anything is dropped
    dropped: dict[str, int] = field(default_factory=dict)  # by reason
    changed: dict[str, int] = field(default_factory=dict)  # rows that are not used as they stand, by what was done
    truncated: int = 0  # cut to the sequence length
    rows_out: int = 0  # given to the stage; with weight 2 each row twice
    tokens: int = 0
    masked_share: float = 0.0  # rows without one token to learn from, as a share of the rows not dropped
    epochs: float = 0.0  # passes over the rows that were read
    before: dict[str, int] = field(default_factory=dict)  # left out by cleaning, by reason: on these limits are too
    cut_short: bool = False  # reading ended at a token budget; rows behind it are not counted
    overlaps: list[str] = field(default_factory=list)  # the first rows that repeat the exam: its text, and the row's
    joined: int = 0  # records beyond the first of each row that is made of several; `rows_in` has them all
    again: bool = False  # rows that stages before have read: the source ended, and is read from its start again

    def drop(self, reason: str, overlap: str | None = None, number: int = 1) -> None:
        """Count a row that is left out; `overlap` are both texts of one that repeats the exam."""
        self.dropped[reason] = self.dropped.get(reason, 0) + number
        if overlap is not None and len(self.overlaps) < MOST_OVERLAPS:
            self.overlaps.append(overlap)

    def change(self, what: str, number: int = 1) -> None:
        self.changed[what] = self.changed.get(what, 0) + number

    @property
    def num_dropped(self) -> int:
        return sum(self.dropped.values())

    @property
    def num_masked(self) -> int:
        """Rows without one token to learn from."""
        return round(self.masked_share * self.num_kept)

    @property
    def gone(self) -> Mapping[str, int]:
        """How many rows were left out for which reasons, by cleaning too."""
        return Counter(self.dropped) + Counter(self.before)

    @property
    def num_read(self) -> int:
        """Rows read for these, those that cleaning left out included."""
        return self.rows_in + sum(self.before.values())

    @property
    def num_lost(self) -> int:
        return sum(number for reason, number in self.gone.items() if not is_by_choice(reason))

    @property
    def losses(self) -> str:
        """How many rows were dropped for which reasons, for messages."""
        return ", ".join(f"{reason} {number}" for reason, number in sorted(self.dropped.items())) or "none"

    @property
    def main_reason(self) -> str | None:
        """Why most rows were dropped. A reason that a setting asks for comes last."""
        return max(self.gone, key=lambda name: (not is_by_choice(name), self.gone[name]), default=None)

    def remedy(self, otherwise: str) -> str:
        """Return what to do about the main reason, or what else may help; without a full stop."""
        reason = self.main_reason or ""
        return next((remedy for start, remedy in _REMEDIES.items() if reason.startswith(start)), otherwise)

    @property
    def num_kept(self) -> int:
        """Rows that are left; those that are made of several records count once."""
        return max(0, self.rows_in - self.num_dropped - self.joined)

    @property
    def records_each(self) -> float:
        """Records that a row is made of, on average."""
        return 1 + self.joined / self.rows_out if self.rows_out > 0 else 1.0

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a stage's manifest stores them; what is rare only where it is so."""
        return {name: value for name, value in asdict(self).items() if name not in RARE or value}

    @property
    def passes(self) -> str:
        """How often the rows of the source are seen, for people."""
        return passes_of(self.epochs, self.cut_short)


def check_limits(counts: Iterable[RowCount], limits: Limits, stage: str) -> None:
    """Stop a stage that loses more of its rows than its limits allow.

    Shares are taken over all rows of a role, so that replay hides nothing of the stage's own rows; besides, no source
    may lose every row unless the limit is 1.
    Raises ContractError that names the source and reason with most rows, and the key to change.
    """
    by_role: dict[str, dict[str, RowCount]] = {}
    for count in counts:
        if count.num_read:
            found = by_role.setdefault(count.role, {})
            found[count.source] = _together(found[count.source], count) if count.source in found else count
    for of_role in by_role.values():
        _check_role(list(of_role.values()), limits, stage)


def _together(one: RowCount, other: RowCount) -> RowCount:
    """Return the account of rows of one source that stand in two, as those that are read again do."""
    kept = one.num_kept + other.num_kept
    return replace(
        one, rows_in=one.rows_in + other.rows_in, rows_out=one.rows_out + other.rows_out,
        dropped=dict(Counter(one.dropped) + Counter(other.dropped)),
        before=dict(Counter(one.before) + Counter(other.before)),
        truncated=one.truncated + other.truncated, joined=one.joined + other.joined,
        masked_share=(one.masked_share * one.num_kept + other.masked_share * other.num_kept) / max(1, kept),
    )  # fmt: skip


def _check_role(counts: list[RowCount], limits: Limits, stage: str) -> None:
    _check_dropped(counts, limits.dropped, stage)
    kept = sum(count.num_kept for count in counts)
    cut = {count.source: float(count.truncated) for count in counts}
    masked = {count.source: count.masked_share * count.num_kept for count in counts}
    _check_share(cut, kept, limits.truncated, stage, "truncated", "cut to the sequence length", "a longer sequence")
    _check_share(masked, kept, limits.masked, stage, "masked", "left without one token to learn from", "whole answers")


def _check_dropped(counts: list[RowCount], limit: float, stage: str) -> None:
    key = f"{stage}.limits.dropped"
    gone = [count for count in counts if count.num_lost == count.num_read]
    if gone and limit < 1:
        raise ContractError(
            f"Stage {stage}: source '{gone[0].source}' lost all its {gone[0].num_read} rows, {_main_reason(gone[0])}. "
            f"{gone[0].remedy('Repair or disable the source')}, or set {key}=1."
        )
    total, lost = sum(count.num_read for count in counts), sum(count.num_lost for count in counts)
    if total and lost / total > limit:
        worst = max(counts, key=lambda count: count.num_lost)
        place = f"{stage}, replay" if worst.role == "replay" else stage
        raise ContractError(
            f"Stage {place}: {lost / total:.1%} of its rows were dropped, the limit is {limit:.1%}. Most are from "
            f"source '{worst.source}' ({worst.num_lost} of {worst.num_read}), {_main_reason(worst)}. "
            f"{worst.remedy('Repair the source')}, or raise {key}."
        )


def _check_share(
    lost: dict[str, float], total: int, limit: float, stage: str, name: str, what: str, remedy: str
) -> None:
    num_lost = sum(lost.values())
    if not total or num_lost / total <= limit:
        return
    worst = max(lost, key=lambda source: lost[source])
    raise ContractError(
        f"Stage {stage}: {num_lost / total:.1%} of its rows were {what}, the limit is {limit:.1%}. Most are from "
        f"source '{worst}' ({lost[worst]:.0f} rows). Give them {remedy}, or raise {stage}.limits.{name}."
    )


def _main_reason(count: RowCount) -> str:
    reason = count.main_reason
    assert reason is not None, "only a source that lost rows is named"
    return f"reason '{reason}' ({count.gone[reason]} rows)"
