"""What every source of rows offers the stages: rows by role, and the facts that define them.

Usage: `for row in corpus.rows("cpt"): ...`; `recipe["data"] = corpus.identity(["cpt", "replay"])`.

It is the contract only. `common.data.manifest.manifest` reads files and Hub data sets, `common.data.knowledge.corpus`
renders a domain's own knowledge.

Rows are plain dicts, each with its `source`, its `language` where that is known, and its `date` where the source names
a column for it (as it stands there; `common.data.dates` reads it): text rows {"text"}, chat rows {"messages"},
preference rows {"prompt", "chosen", "rejected"} (lists of messages) or {"prompt", "completion", "label"}
where answers come one by one, prompt rows {"prompt", "answer"} whose answer can be verified (and "choices" where they
have some; without "answer" where only a reward model can judge), and question rows. Those are {"id", "question",
"choices", "answer"}, the answer being the place of the right choice; or, where answers are written out, {"id",
"question", "answers", "match", "final"}: any of the answers is right, `match` says what must be equal (text or number),
and `final`, if not None, is the mark after which a model's own answer stands (it is already cut from these).

A message has role (system, user, assistant, tool) and content, and may have tool_calls (their arguments as objects),
reasoning_content, name and tool_call_id; "learn" is False in a turn of the assistant that is context only. Rows of
conversations may have "tools", as OpenAI's function schemas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from common.data.accounting import RowCount

Row = dict[str, Any]


@dataclass(frozen=True)
class Portion:
    """The rows that one source gives a role, for those who may not have the time to read them all."""

    source: str  # its id; "" where the rows of several are one
    rows: Iterator[Row]
    times: float  # that each of them is used
    share: Callable[[], float]  # of the source that has been read so far; 1 once there is no more
    count: RowCount | None = None  # of the rows read so far; none where no row can be dropped
    far: bool = False  # on the Hub, where nothing says how many there are
    size: int = 0  # bytes of its files


CORPUS_ROLES = (
    "pretrain", "cpt", "replay", "sft", "preference", "preference_heldout", "prompts", "questions_domain",
    "questions_general", "text_domain", "text_general",
)  # fmt: skip


class Corpus(Protocol):
    """Rows by role. `pretrain` and `replay` may mix text and chat rows; `cpt` is text, `sft` chat."""

    @property
    def domain_title(self) -> str:
        """The title of the domain's data, for the card."""

    def identity(self, roles: Sequence[str]) -> list[dict[str, Any]]:
        """Return JSON-able facts that define the rows of these roles; never paths."""

    def rows(self, role: str) -> Iterator[Row]:
        """Yield the rows of one of CORPUS_ROLES, in the same order every time."""

    def portions(self, role: str, *, hub: bool = False) -> list[Portion] | None:
        """Return the rows of a role by source, apart from its accounts.

        None where some are not on this machine; with `hub`, these are among them.
        """

    def counts(self, role: str) -> Mapping[str, RowCount]:
        """Return the accounts of a role by source id, as far as its rows have been read."""

    def exam_roles(self, role: str) -> tuple[str, ...]:
        """Return the roles of the exam questions that rows of a training role must not repeat."""

    def conversations(self, role: str) -> Mapping[str, bool]:
        """Return the sources of a role by id, each with whether it has conversations. Reads no row."""

    def unpaired(self, role: str) -> Mapping[str, bool]:
        """Return the sources of a role by id, each with whether it has single answers with a label, and no pairs."""

    def shapes(self) -> Mapping[str, str]:
        """Return what the rows of each source were taken for, by id; nothing for rows that no file holds."""

    def findings(self) -> Mapping[str, Sequence[str]]:
        """Return what was found out about the files of each source so far, by id, where nobody had said it."""

    def check_rows(self, roles: Sequence[str]) -> None:
        """Read every local row of these roles once, so that a broken one shows before anything is spent."""

    def sources(self) -> list[dict[str, Any]]:
        """Return id, role, title, licence, revision or digest, and rows (or None) of each source, for the card."""
