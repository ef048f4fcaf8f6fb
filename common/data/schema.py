"""What a data manifest may say: its keys, the columns that each kind of row needs, and which roles a source serves.

Usage: `source = Source.model_validate({"id": ..., "role": "cpt", ...})`, usually through
`common.data.manifest.load_manifest`.

It knows nothing of files: whether they exist and what is in them is `common.data.manifest_checks`.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from common.config import Frozen
from common.errors import did_you_mean

Role = Literal["pretrain", "cpt", "replay", "sft", "preference", "eval"]
Shape = Literal["text", "chat", "preference", "questions"]
Part = Literal["train", "heldout"]
HELDOUT_ROLES = {
    "pretrain": "text_general",
    "replay": "text_general",
    "cpt": "text_domain",
    "preference": "preference_heldout",
}
TEXT_SUFFIXES = (".txt", ".md")


class Columns(NamedTuple):
    """One way of naming the columns of a kind of row."""

    required: frozenset[str]
    optional: frozenset[str] = frozenset()


COLUMNS: dict[Shape, tuple[Columns, ...]] = {
    "text": (Columns(frozenset({"text"})),),
    "chat": (
        Columns(frozenset({"messages"})),
        Columns(frozenset({"question", "answer"}), frozenset({"system", "context", "choices", "labels"})),
    ),
    "preference": (
        Columns(frozenset({"transcript_chosen", "transcript_rejected"})),
        Columns(frozenset({"chosen", "rejected"}), frozenset({"prompt"})),
    ),
    "questions": (Columns(frozenset({"question", "answer"}), frozenset({"choices", "labels", "context", "id"})),),
}


class Source(Frozen):
    """One data set, or one part of it, in one role."""

    id: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="name of the source")
    role: Role
    side: Literal["domain", "general"] | None = Field(None, description="eval only: which knowledge it measures")
    path: str | tuple[str, ...] | None = Field(None, description="file, files or glob below the data folder")
    hub: str | None = Field(None, description="Hub id, as owner/name")
    config: str | None = Field(None, description="hub only: the data set's configuration")
    split: str | None = Field(None, description="hub only: train, validation, test, ...")
    revision: str | None = Field(None, description="hub only: branch, tag or commit; none: the newest")
    data_files: str | tuple[str, ...] | None = Field(None, description="hub only: these files of the repository")
    columns: dict[str, str | tuple[str, ...]] = Field(default_factory=dict, description="our name -> theirs; a.0.b too")
    choices: tuple[str, ...] | None = Field(None, description="the same choices for every question")
    unit: Literal["file", "paragraph", "line"] = Field("paragraph", description="txt and md: what makes a row")
    licence: str = Field("", description="licence, as the Hub spells it; required")
    gated: bool = Field(False, description="the Hub hands it out only to accounts that accepted its terms")
    enabled: bool = Field(True, description="false: named here, not used")
    weight: float = Field(1.0, gt=0, description="times its rows are used: 2 twice, 0.5 every second")
    limit: int | None = Field(None, gt=0, description="at most this many rows")
    heldout: float = Field(0.0, ge=0, lt=1, description="share of rows never trained on, chosen by hash")
    evidence: str = Field("", description="how the facts of this entry were checked")
    note: str = ""

    @field_validator("columns")
    @classmethod
    def _only_choices_are_lists(cls, columns: dict[str, Any]) -> dict[str, Any]:
        for name, column in columns.items():
            if not isinstance(column, str) and name != "choices":
                raise ValueError(f"'{name}' is a list of columns; only choices may be one")
        return columns

    @model_validator(mode="after")
    def _consistent(self) -> Source:
        problems = [*self._origin_problems(), *self._role_problems(), *self._column_problems()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _origin_problems(self) -> list[str]:
        if (self.path is None) == (self.hub is None):
            return ["needs either path (files) or hub (a data set of the Hub), and not both"]
        hub_keys = [key for key in ("config", "split", "revision", "data_files") if getattr(self, key) is not None]
        if self.path is not None and hub_keys:
            return [f"{', '.join(hub_keys)} only make sense with hub"]
        if self.hub is not None and self.split is None:
            return ["needs split (train, validation, test, ...), so that exam and training rows cannot meet unseen"]
        return []

    def _role_problems(self) -> list[str]:
        problems = []
        if self.role == "eval":
            if self.side is None and self.shape != "preference":
                problems.append("role eval needs side: domain or general")
            if self.weight != 1:
                problems.append("weight only makes sense in training; an exam asks each question once")
        elif self.side is not None:
            problems.append(f"side only makes sense with role eval, not {self.role}")
        if self.heldout and (self.role not in HELDOUT_ROLES or self.shape == "chat"):
            problems.append("heldout only makes sense for text rows (pretrain, cpt, replay) and for preference rows")
        if self.role == "cpt" and self.shape == "chat":
            problems.append("role cpt takes text rows; give columns: {text: ...}, or use role sft")
        return problems

    def _column_problems(self) -> list[str]:
        if self.is_plain_text:
            wrong = "text files have no columns" if self.columns else ""
            wrong = wrong or ("" if self.shape == "text" else f"role {self.role} needs columns, so no text file")
            return [wrong] if wrong else []
        names = frozenset(self.named_columns)
        form = self._columns_form()
        if form is None:
            ways = " or ".join(" + ".join(sorted(form.required)) for form in COLUMNS[self.shape])
            return [f"columns of role {self.role} must name {ways}; it names {', '.join(sorted(names)) or 'none'}"]
        known = form.required | form.optional
        problems = [
            f"unknown column name '{name}' on our side.{did_you_mean(name, known)}" for name in sorted(names - known)
        ]
        if self.shape == "questions" and ("choices" in names) == (self.choices is not None):
            problems.append("an exam needs choices: either a column (columns.choices) or a fixed list (choices)")
        if self.choices is not None and (self.shape != "questions" or len(self.choices) < 2):
            problems.append("choices must list at least two answers, and only makes sense with role eval")
        return problems

    def _columns_form(self) -> Columns | None:
        names = frozenset(self.named_columns)
        return next((form for form in COLUMNS[self.shape] if form.required <= names), None)

    @property
    def is_plain_text(self) -> bool:
        paths = (self.path,) if isinstance(self.path, str) else self.path or ()
        return bool(paths) and all(path.lower().endswith(TEXT_SUFFIXES) for path in paths)

    @property
    def named_columns(self) -> dict[str, str | tuple[str, ...]]:
        """The columns as given; a text source without any reads `text`."""
        if self.columns or self.shape != "text":
            return self.columns
        return {"text": "text"}

    @property
    def shape(self) -> Shape:
        """The kind of row, told by the role and the columns that are named."""
        names = self.columns.keys()
        if self.role == "preference" or (self.role == "eval" and names & {"chosen", "transcript_chosen"}):
            return "preference"
        if self.role == "sft" or (self.role != "eval" and names & {"messages", "question", "answer"}):
            return "chat"
        return "questions" if names & {"question", "answer"} else "text"

    def part_for(self, role: str) -> Part | None:
        """Return which part of this source serves one of the corpus roles, or None."""
        if self.role == "eval":
            own = "preference_heldout" if self.shape == "preference" else f"{self.shape}_{self.side}"
            return "train" if role == own else None
        if role == self.role:
            return "train"
        return "heldout" if self.heldout and role == HELDOUT_ROLES[self.role] else None


class Manifest(Frozen):
    """A domain's data: a title, the sources, and settings that belong to this data."""

    title: str = Field(min_length=1)
    settings: dict[str, Any] = Field(default_factory=dict, description="a layer of settings, checked with the others")
    sources: tuple[Source, ...]
