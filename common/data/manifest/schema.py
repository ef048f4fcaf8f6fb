"""What a data manifest may say: its keys, what goes together, and which roles a source serves.

Usage: `source = Source.model_validate({"id": ..., "role": "cpt", ...})`, usually through
`common.data.manifest.manifest.load_manifest`.

It knows nothing of files: whether they exist and what is in them is `common.data.manifest.manifest_checks`. Columns
that a manifest leaves out are recognised in the file by `common.data.manifest.recognition`, and checked then.
"""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from common.config.base import Frozen
from common.config.blocks import BlockList
from common.config.names import Name, NonEmpty
from common.data.manifest.columns import COLUMNS, LISTS_OF_COLUMNS, Shape, form_of, names_of, usual_beside
from common.data.manifest.files.source_file import (
    DOCUMENTS,
    FORMATS,
    LINES,
    PAGES,
    TABLES,
    TEXTS,
    Reading,
    split_suffix,
)
from common.data.manifest.language_codes import language_problem
from common.data.manifest.values import folded
from common.data.words import count_words
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
LONGEST_QUESTION = 12  # words; see `common.data.words`
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


class Source(Frozen):
    """One data set, or one part of it, in one role."""

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

    @model_validator(mode="after")
    def _consistent(self) -> Source:
        problems = [*self._origin_problems(), *self._role_problems(), *self._column_problems()]
        problems += self._conversation_problems()
        if self.language is not None:
            problems += language_problem(self.language, answered=self.shape == "questions")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _origin_problems(self) -> Iterator[str]:
        hub_keys = ("config", "revision", "data_files", "gated")
        given = [key for key in hub_keys if getattr(self, key) not in (None, False)]
        if (self.path is None) == (self.hub is None):
            yield "needs either path (files) or hub (a data set of the Hub), and not both"
        elif self.path is not None and given:
            yield f"{', '.join(given)} only make sense with hub"
        elif self.hub is not None and self.split is None:
            yield "needs split (train, validation, test, ...), so that exam and training rows cannot meet unseen"
        elif self.split is not None and self._all_are(FORMATS):
            yield "split only makes sense with hub, or with a folder of save_to_disk"
        if self.header is not None and (len(set(self.header)) < len(self.header) or not self.header):
            yield f"header must give each column its own name; it is {list(self.header)}"
        for key, formats in (("header", TABLES), ("delimiter", TABLES), ("quoting", TABLES), ("records", JSON)):
            if getattr(self, key) is not None and not self._all_are(formats):
                yield f"{key} only makes sense with {' and '.join(name[1:] for name in formats)} files"
        if self.encoding is not None and not self._all_are((*TABLES, *TEXTS, *JSON, *PAGES)):
            yield "encoding only makes sense with files of text: csv, tsv, txt, md, html, json and jsonl"
        if self.pdf != "pypdf" and not any(_suffix_of(path) in ("", ".pdf", ".*") for path in self.paths):
            yield "pdf only makes sense with pdf files"

    def _role_problems(self) -> Iterator[str]:
        if self.role == "eval":
            if self.side is None and self.shape != "preference" and not self._undecided:
                yield "role eval needs side: domain or general"
            if self.weight != 1:
                yield "weight only makes sense in training; an exam asks each question once"
        elif self.side is not None:
            yield f"side only makes sense with role eval, not {self.role}"
        if self.heldout and (self.role not in HELDOUT_ROLES or self.shape == "chat"):
            yield "heldout only makes sense for text rows (pretrain, cpt, replay) and for preference rows"
        if self.control_tokens and self.role in ("prompts", "eval"):
            yield f"control_tokens only makes sense in training; role {self.role} reads every name of one as text"
        if self.role == "cpt" and self.shape == "chat":
            yield "role cpt takes text rows; give columns: {text: ...}, or use role sft"

    def _column_problems(self) -> Iterator[str]:
        if self.is_plain_text:
            if self.columns or self.each or self.where:
                yield "text files have no columns"
            elif self.shape != "text":
                yield f"role {self.role} needs columns, so no text file"
            elif self.cut:
                yield "cut is for text columns; text files have unit"
            return
        names = self._names
        form = form_of(self.shape, names)
        if form is None and self.question is not None:
            ways = " or ".join(" + ".join(sorted(form.required)) for form in COLUMNS[self.shape])
            yield f"columns of role {self.role} must name {ways}; it names {', '.join(sorted(names)) or 'none'}"
            return
        known = names_of(*SHAPES[self.role]) if form is None or self._undecided else form.required | form.optional
        for name in sorted(names - known):
            yield f"unknown column name '{name}' on our side.{did_you_mean(name, known)}"
        if self._undecided:  # the rest is checked once the file has told the columns
            return
        if self.question is not None:
            yield from self._question_problems(self.question)
        if self.cut is not None and self.shape != "text":
            yield f"cut only makes sense for text rows, not for {self.shape} rows"
        yield from self._choice_problems()
        yield from self._answer_problems()

    def _question_problems(self, question: str) -> Iterator[str]:
        if self.shape in ("text", "preference") or "messages" in self.columns:
            yield "question only makes sense with columns context and answer"
        elif "question" in self.columns:
            yield "the question is given twice: as a column and as a fixed text; keep one"
        elif "context" not in self.columns:
            yield "the same question for every record needs columns.context: what it is asked about"
        elif count_words(question) > LONGEST_QUESTION:
            yield (
                f"the same question for every record may have {LONGEST_QUESTION} words; training rows that repeat more "
                "of an exam are left out, and each would"
            )

    def _conversation_problems(self) -> Iterator[str]:
        talks = self.shape in ("chat", "preference", "prompts") or self._undecided
        keys = [key for key, usual in (("turns", "strict"), ("system_turns", "keep")) if getattr(self, key) != usual]
        yield from (f"{key} only makes sense for conversations" for key in keys if not talks)

    def _choice_problems(self) -> Iterator[str]:
        if self.choices is None:
            return
        if self.shape != "questions" or len(self.choices) < 2:
            yield "choices must list at least two answers, and only makes sense with role eval"
        elif len({folded(choice) for choice in self.choices}) < len(self.choices):
            yield f"choices lists an answer twice: {', '.join(self.choices)}"

    def _answer_problems(self) -> Iterator[str]:
        fixed, names = self.choices is not None, self.columns.keys()
        keys = ("index_from", "answer_by") if "choices" not in names and not fixed else ()
        yield from (f"{key} only makes sense with choices" for key in keys if getattr(self, key))
        if self.shape != "questions":
            if self.match is not None:
                yield "match only makes sense with role eval, for questions with written answers"
            if self.final is not None and (self.shape != "prompts" or "choices" in names):
                yield "final only makes sense for written answers: with match, or with role prompts"
            return
        if "answer" in names and "answers" in names:
            yield "give answer (one) or answers (several, any of them right), not both"
        choices = "an exam needs choices: either a column (columns.choices) or a fixed list (choices)"
        if "choices" in names and fixed:
            yield f"{choices}, not both"
        elif "choices" in names or fixed:
            wrong = [key for key in ("match", "final") if getattr(self, key) is not None]
            wrong += ["columns.answers"] if "answers" in names else []
            yield from (f"{key} only makes sense for written answers, and this exam has choices" for key in wrong)
        elif self.match is None:
            yield f"{choices}; or match: text or number, where answers are written out"

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
        return bool(self.paths) and all(_suffix_of(path) in formats for path in self.paths)

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
            self.unit,
            self.header,
            self.delimiter,
            self.quoting,
            self.encoding,
            self.records,
            tuple(columns),
            self.pdf,
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

    @property
    def unrecognised(self) -> bool:
        """Whether the columns that are named make no row yet, so that a file must tell the others.

        Text of the Hub is read from the column `text`, so that nothing is asked to know it.
        """
        if self.is_plain_text:
            return False
        if not self.columns and self.hub is not None and SHAPES[self.role] == ("text",):
            return False
        return not self.columns or form_of(self.shape, self._names) is None

    @property
    def _undecided(self) -> bool:
        """Whether a file must still tell what kind of rows it has."""
        return self.unrecognised and SHAPES[self.role] != ("text",)

    @property
    def unpaired(self) -> bool:
        """Whether its rows are single answers with a label, as KTO learns from, and no pairs."""
        return self.shape == "preference" and "label" in self.columns

    @property
    def shape(self) -> Shape:
        """The kind of row, by the role and the columns that are named."""
        names = self.columns.keys() | ({"question"} if self.question is not None else set())
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


def _suffix_of(path: str) -> str:
    """Return the format that a path ends in; what follows a question mark in an address of the web is no part of it."""
    return split_suffix(path.partition("?")[0] if path.lower().startswith("http") else path)[0]


class Manifest(Frozen):
    """A domain's data: a title, the sources, and settings that belong to this data."""

    title: NonEmpty = Field(description="title of the data, for the card")
    settings: dict[str, Any] = Field(default_factory=dict, description="a layer of settings, checked with the others")
    profiles: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="a further layer for the runs of one profile, by name"
    )
    blocks: BlockList | None = Field(
        None, description="blocks that clean the rows of all roles, in their order; see docs/blocks.md"
    )
    sources: tuple[Source, ...] = Field(description="the data sets, each in one role")
