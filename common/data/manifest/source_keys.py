"""The keys of a source in a data manifest, and what follows from them: its kind of rows, and how its files are read.

Usage: `source.shape`, `source.reading` and `source.part_for("cpt")` of a `common.data.manifest.schema.Source`.

It checks each key by itself. What goes together is `common.data.manifest.schema`.
"""

from __future__ import annotations

import codecs
import functools
import itertools
from typing import Any, Literal, cast

from pydantic import Field, field_validator

from common.config.base import Frozen
from common.config.forms import Form, FormChoice, FormSettings, chosen
from common.config.names import Name, NonEmpty
from common.data.manifest.columns import LISTS_OF_COLUMNS, Shape, form_of, usual_beside
from common.data.manifest.files.source_file import DOCUMENTS, LINES, TEXTS, Reading, split_suffix
from common.errors import did_you_mean

Role = Literal["pretrain", "cpt", "replay", "sft", "preference", "prompts", "eval"]
Part = Literal["train", "heldout"]
AnswerBy = Literal["text", "mark"]
HELDOUT_ROLES = {
    "pretrain": "text_general",
    "replay": "text_general",
    "cpt": "text_domain",
    "preference": "preference_heldout",
}
JSON = (".json", *LINES)
ENCODINGS = ("utf-8", "utf-16", "cp1252", "latin-1", "cp1250", "cp1251", "shift_jis", "gb18030")  # for hints
OF_PYTHON = ("idna", "punycode", "raw-unicode-escape", "unicode-escape", "undefined")  # are no encodings of files
MOST_ROWS = 10**12
# The kinds of rows that a role may have; with several, the columns decide.
SHAPES: dict[Role, tuple[Shape, ...]] = {
    "pretrain": ("text",),
    "cpt": ("text",),
    "replay": ("text", "chat"),
    "sft": ("chat",),
    "preference": ("preference",),
    "prompts": ("prompts",),
    "eval": ("questions", "text", "preference"),
}


class SourceKeys(Frozen):
    """The keys of a source, each right by itself, and what follows from them."""

    id: Name = Field(description="name of the source")
    role: Role = Field(description="what its rows are for: a stage, replay, prompts, or the exam (eval)")
    side: Literal["domain", "general"] | None = Field(None, description="eval only: which knowledge it measures")
    path: NonEmpty | tuple[NonEmpty, ...] | None = Field(
        None,
        description="file, files or glob below the data folder or at s3://, https://, …, or a folder of save_to_disk",
    )
    hub: NonEmpty | None = Field(None, description="Hub id, as owner/name")
    config: NonEmpty | None = Field(None, description="hub only: the data set's configuration")
    split: NonEmpty | None = Field(None, description="hub, and folders of save_to_disk: train, validation, test, ...")
    revision: NonEmpty | None = Field(None, description="hub only: branch, tag or commit; none: the newest")
    data_files: NonEmpty | tuple[NonEmpty, ...] | None = Field(
        None, description="hub only: these files of the repository"
    )
    columns: dict[NonEmpty, NonEmpty | tuple[NonEmpty, ...]] = Field(
        default_factory=dict,
        description="our name -> theirs; a.0.b reaches inside, a.*.b is the list of all; none: told from the file",
    )
    form: FormChoice = Field(
        None, description="how a record becomes a text of cpt, or a conversation, as qa or interlinear: docs/forms.md"
    )
    header: tuple[NonEmpty, ...] | None = Field(
        None, description="csv and tsv without a first line of names: the names"
    )
    delimiter: NonEmpty | None = Field(
        None, description="csv and tsv: the sign between fields, or tab; none: found out"
    )
    quoting: bool | None = Field(
        None, description="csv and tsv: whether quotes wrap fields; none: in csv, in tsv where its rows show it"
    )
    encoding: NonEmpty | None = Field(
        None, description="text files of all formats: as cp1252 or utf-16; none: found out"
    )
    records: NonEmpty | None = Field(None, description="json: the key, as a or a.b, whose list holds the records")
    each: NonEmpty | None = Field(None, description="a list column: one record per item, which takes the list's place")
    where: dict[NonEmpty, tuple[str, ...]] = Field(
        default_factory=dict, description="their column -> the value, or values, of the records to use"
    )
    skip: int = Field(
        0, ge=0, le=MOST_ROWS, description="leave out this many records of each file, or of the split, from its start"
    )
    take: int | None = Field(
        None, gt=0, le=MOST_ROWS, description="use this many records of each file after `skip`, and no more"
    )
    every: int = Field(1, ge=1, description="of those, use every n-th record, to sample a long file evenly")
    longest: int | None = Field(None, gt=0, le=MOST_ROWS, description="leave out rows whose texts have more characters")
    question: NonEmpty | None = Field(None, description="the same question about every record's context")
    choices: tuple[NonEmpty, ...] | None = Field(None, description="the same choices for every question")
    match: Literal["text", "number"] | None = Field(None, description="exams with written answers: what must be equal")
    index_from: Literal[0, 1] = Field(0, description="exam answers that are numbers count the choices from this one")
    answer_by: AnswerBy | None = Field(
        None,
        description="whether answers name a choice by its text, or by its letter or place; none: found out",
    )
    turns: Literal["strict", "fix"] = Field(
        "strict", description="conversations out of order: strict leaves them out; fix trims and joins their turns"
    )
    system_turns: Literal["keep", "fold"] = Field(
        "keep", description="fold: system text begins the first user turn, for templates that refuse system turns"
    )
    final: NonEmpty | None = Field(None, description="the mark after which the final answer stands, as ####")
    unit: Literal["file", "paragraph", "line"] = Field(
        "paragraph", description="txt, md and documents: what makes a row"
    )
    pdf: Literal["pypdf", "docling"] = Field(
        "pypdf", description="what reads PDFs: pypdf their text alone, docling columns and tables too, with models"
    )
    cut: Literal["paragraph", "line"] | None = Field(None, description="cut long text columns there, into many rows")
    control_tokens: tuple[NonEmpty, ...] = Field(
        (), description="training only: names of control tokens that its texts mean as such, as <think>"
    )
    language: NonEmpty | None = Field(None, description="ISO 639 code, as in de, sw or zh-hans")
    licence: str = Field("", description="licence, as the Hub spells it; required")
    gated: bool = Field(False, description="the Hub gives it only to accounts that accepted its terms")
    enabled: bool = Field(True, description="false: named here, not used")
    weight: float = Field(1.0, gt=0, le=1000, description="times its rows are used: 2 twice, 0.5 every second")
    limit: int | None = Field(None, gt=0, le=MOST_ROWS, description="at most this many rows")
    heldout: float = Field(0.0, ge=0, lt=1, description="share of texts never trained on, chosen by hash, each whole")
    evidence: str = Field("", description="how the facts of this entry were checked")
    note: str = Field("", description="anything worth knowing about it")

    @field_validator("columns")
    @classmethod
    def _few_are_lists(cls, columns: dict[str, Any]) -> dict[str, Any]:
        for name, column in columns.items():
            if not isinstance(column, str) and name not in LISTS_OF_COLUMNS:
                raise ValueError(f"'{name}' is a list of columns; only {', '.join(LISTS_OF_COLUMNS)} may be one")
        return columns

    @field_validator("delimiter")
    @classmethod
    def _one_sign(cls, delimiter: str | None) -> str | None:
        sign = "\t" if delimiter == "tab" else delimiter
        if sign is not None and (len(sign) != 1 or sign in '"\r\n'):
            raise ValueError(f"delimiter is {delimiter!r}; expected one sign, such as ';' or '|', or tab")
        return sign

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str | None) -> str | None:
        try:
            name = codecs.lookup(encoding or "utf-8").name
            if name in OF_PYTHON:
                raise LookupError
            "".encode(name)  # some of the codecs that Python knows are not of text
        except (LookupError, ValueError):
            hint = did_you_mean(encoding or "", ENCODINGS)
            raise ValueError(f"encoding is {encoding!r}, which is no encoding of files here.{hint}") from None
        return encoding and name

    @field_validator("where", mode="before")
    @classmethod
    def _values_as_texts(cls, where: Any) -> Any:
        if not isinstance(where, dict):
            return where
        texts: dict[Any, tuple[str, ...]] = {}
        for column, values in where.items():
            items = values if isinstance(values, list | tuple) else [values]
            if not items or any(isinstance(item, list | dict) for item in items):
                raise ValueError(f"where.{column} is {values!r}; expected a value, or a list of values")
            texts[column] = tuple(str(item) for item in items)  # a csv file holds texts only
        return texts

    @property
    def is_json(self) -> bool:
        """Whether it is files of JSON, in which each record may have other columns."""
        return self._all_are(JSON)

    @property
    def is_plain_text(self) -> bool:
        """Whether it is files of text or documents, which have no columns."""
        return self._all_are((*TEXTS, *DOCUMENTS))

    def _all_are(self, formats: tuple[str, ...]) -> bool:
        """Whether all paths end in one of some formats, packed or not."""
        return bool(self.paths) and all(suffix_of(path) in formats for path in self.paths)

    @property
    def reading(self) -> Reading:
        """How its files are read."""
        # Columns that are still unknown are recognised among all that there are.
        named = [names if isinstance(names, tuple) else (names,) for names in self.columns.values()]
        beside = usual_beside(self.shape, self.columns.keys())
        columns = [*itertools.chain(*named), *self.where, *([self.each] if self.each else []), *beside]
        if self.unrecognised:
            columns = []
        return Reading(
            self.unit, self.header, self.delimiter, self.quoting, self.encoding, self.records, tuple(columns), self.pdf
        )

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,) if isinstance(self.path, str) else self.path or ()

    @property
    def named_columns(self) -> dict[str, str | tuple[str, ...]]:
        """The columns as given; a text source without any reads `text`."""
        if self.columns or self.shape != "text":
            return self.columns
        return {"text": "text"}

    @property
    def _names(self) -> frozenset[str]:
        return frozenset(self.named_columns) | ({"question"} if self.question is not None else frozenset())

    @functools.cached_property
    def formed(self) -> tuple[Form, FormSettings] | None:
        """Its form with the settings of it, where it has one."""
        return None if self.form is None else chosen(self.form)

    @property
    def kinds(self) -> tuple[Shape, ...]:
        """The kinds of rows that its columns may make; with several, the columns decide."""
        return SHAPES[self.role] if self.formed is None else cast(tuple[Shape, ...], tuple(self.formed[0].takes))

    @property
    def makes(self) -> Shape:
        """The kind of row that it gives: what its columns make, or what its form makes of that."""
        return self.shape if self.formed is None else self.formed[0].makes

    @property
    def unrecognised(self) -> bool:
        """Whether the columns that are named make no row yet, so that a file must tell the others.

        Text of the Hub is read from the column `text`, so that nothing is asked to know it.
        """
        if self.is_plain_text:
            return False
        if not self.columns and self.hub is not None and self.kinds == ("text",):
            return False
        return not self.columns or form_of(self.shape, self._names) is None

    @property
    def _undecided(self) -> bool:
        """Whether a file must still tell what kind of rows it has."""
        return self.unrecognised and self.kinds != ("text",)

    @property
    def unpaired(self) -> bool:
        """Whether its rows are single answers with a label, as KTO learns from, and no pairs."""
        return self.shape == "preference" and "label" in self.columns

    @property
    def shape(self) -> Shape:
        """The kind of row that its columns make, by the role or the form, and the columns that are named."""
        names = self.columns.keys() | ({"question"} if self.question is not None else set())
        if self.formed is not None:
            return next((kind for kind in self.kinds if form_of(kind, names) is not None), self.kinds[0])
        if self.role == "prompts":
            return "prompts"
        if self.role == "preference" or (self.role == "eval" and names & {"chosen", "transcript_chosen", "label"}):
            return "preference"
        if self.role == "sft" or (self.role != "eval" and names & {"messages", "question", "answer", "completion"}):
            return "chat"
        return "questions" if names & {"question", "answer", "answers"} else "text"

    def part_for(self, role: str) -> Part | None:
        """Return which part of this source serves one of the corpus roles, or None."""
        if self.role == "eval":
            own = "preference_heldout" if self.shape == "preference" else f"{self.shape}_{self.side}"
            return "train" if role == own else None
        if role == self.role:
            return "train"
        return "heldout" if self.heldout and role == HELDOUT_ROLES[self.role] else None


def suffix_of(path: str) -> str:
    """Return the format that a path ends in; what follows a question mark in an address of the web is no part of it."""
    return split_suffix(path.partition("?")[0] if path.lower().startswith("http") else path)[0]
