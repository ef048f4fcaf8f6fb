"""What a data manifest may say, and which keys of a source go together.

Usage: `source = Source.model_validate({"id": ..., "role": "cpt", ...})`, usually through
`common.data.manifest.manifest.load_manifest`.

The keys of a source are `common.data.manifest.source_keys`. Nothing here knows files: whether they exist and what is in
them is `common.data.manifest.manifest_checks`. Columns that a manifest leaves out are recognised in the file by
`common.data.manifest.recognition`, and checked then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field, model_validator

from common.config.base import Frozen
from common.config.blocks import BlockList
from common.config.forms import ROLES
from common.config.names import NonEmpty
from common.data.manifest.columns import COLUMNS, form_of, names_of
from common.data.manifest.files.source_file import FORMATS, PAGES, TABLES, TEXTS
from common.data.manifest.language_codes import language_problem
from common.data.manifest.source_keys import HELDOUT_ROLES, JSON, SourceKeys, suffix_of
from common.data.manifest.values import folded
from common.data.words import count_words
from common.errors import did_you_mean

LONGEST_QUESTION = 12  # words; see `common.data.words`


class Source(SourceKeys):
    """One data set, or one part of it, in one role."""

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
        if self.pdf != "pypdf" and not any(suffix_of(path) in ("", ".pdf", ".*") for path in self.paths):
            yield "pdf only makes sense with pdf files"

    def _role_problems(self) -> Iterator[str]:
        if self.role == "eval":
            if self.side is None and self.shape != "preference" and not self._undecided:
                yield "role eval needs side: domain or general"
            if self.weight != 1:
                yield "weight only makes sense in training; an exam asks each question once"
        elif self.side is not None:
            yield f"side only makes sense with role eval, not {self.role}"
        if self.heldout and (self.role not in HELDOUT_ROLES or self.makes == "chat"):
            yield "heldout only makes sense for text rows (pretrain, cpt, replay) and for preference rows"
        if self.control_tokens and self.role in ("prompts", "eval"):
            yield f"control_tokens only makes sense in training; role {self.role} reads every name of one as text"
        if self.role == "cpt" and self.makes == "chat" and self.formed is None:
            yield "role cpt takes text rows; give columns: {text: ...}, a form such as qa, or use role sft"
        if self.formed is not None and self.role not in ROLES[self.formed[0].makes]:
            roles = ROLES[self.formed[0].makes]
            yield f"form {self.formed[0].name} is for role {' or '.join(roles)}, not {self.role}"

    def _column_problems(self) -> Iterator[str]:
        if self.is_plain_text:
            if self.columns or self.each or self.where:
                yield "text files have no columns"
            elif self.shape != "text":
                what = f"role {self.role}" if self.formed is None else f"form {self.formed[0].name}"
                yield f"{what} needs columns, so no text file"
            elif self.cut:
                yield "cut is for text columns; text files have unit"
            return
        names = self._names
        form = form_of(self.shape, names)
        if form is None and self.question is not None:
            ways = " or ".join(" + ".join(sorted(form.required)) for form in COLUMNS[self.shape])
            yield f"columns of role {self.role} must name {ways}; it names {', '.join(sorted(names)) or 'none'}"
            return
        known = names_of(*self.kinds) if form is None or self._undecided else form.required | form.optional
        for name in sorted(names - known):
            yield f"unknown column name '{name}' on our side.{did_you_mean(name, known)}"
        if self._undecided:  # the rest is checked once the file has told the columns
            return
        if self.question is not None:
            yield from self._question_problems(self.question)
        if self.cut is not None and self.makes != "text":
            yield f"cut only makes sense for text rows, not for {self.makes} rows"
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
