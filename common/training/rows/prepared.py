"""The rows of one role, tokenised and packed once for every stage, run and sweep that reads the same.

Usage: `made = prepare(reader, assistant_only=False, sequence_length=2048, budget=None)`; `made.rows.select(order)`.

They are kept in the store under a digest of all that decides them: rows and exam, tokenizer and chat template, lengths,
seed, libraries, code (`common.store.shared`). A preparation that is killed goes on behind its last finished shard.
Without a shared store they stay in the stage's scratch. The order of a stage is `common.training.rows.rows`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.config.cleaning import PREFIX
from common.config.mixture import LENGTH, CurriculumSettings
from common.data.accounting import RowCount
from common.data.exam_passages import digest_of
from common.store.artifacts import Artifact, digest_file, fingerprint_of, write_json
from common.store.manifest import read_mapping
from common.training.rows.reader import NO_SCORES, SAMPLED_FILES, Reader, require_rows, sampled_input
from common.training.rows.shards import TokenRow, TokenShards

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from common.stage import StageContext

KIND = "tokens"
SCHEMA = 1
ROWS, FACTS = "rows.arrow", "rows.json"  # the packed rows; samples, counts
SAMPLES = 64  # rows kept as tokenised, for the contracts
LIBRARIES = ("tokenizers", "transformers", "jinja2", "pyarrow")  # what decides tokens
MODULE = "common.training.rows.prepared"
# Of a tokenizer's files: set by whoever used it last, or where it was found.
NOT_TOKENS = {"tokenizer.json": ("truncation", "padding"), "tokenizer_config.json": ("name_or_path", "is_local")}


@dataclass(frozen=True)
class Prepared:
    """The packed rows of one role, in their folder."""

    folder: Path
    rows: Dataset  # memory-mapped; columns input_ids, labels, seq_lengths

    @property
    def samples(self) -> list[TokenRow]:
        """The first rows as they were tokenised."""
        return [TokenRow(*row) for row in read_mapping(self.folder / FACTS)["samples"]]

    @property
    def position(self) -> Mapping[str, Any]:
        """Of rows behind those of stages before: the tokens that were passed over and read, and what is `left`."""
        found: Mapping[str, Any] = read_mapping(self.folder / FACTS).get("position", {})
        return found

    def counts(self, epochs: float) -> list[RowCount]:
        """Return the accounts of the sources, for rows that are seen so often."""
        found = (RowCount(**count) for count in read_mapping(self.folder / FACTS)["counts"])
        return [replace(count, epochs=round(epochs, 3)) for count in found]


def prepare(
    reader: Reader, *, assistant_only: bool, sequence_length: int, budget: int | None,
    order: CurriculumSettings | None = None, scores: Mapping[str, str] = NO_SCORES,
) -> str:  # fmt: skip
    """Make the rows of a reader where nobody has yet, and return their name for `open_prepared`.

    With an order they stand in it; which rows these are depends on the budget alone, and on what the reader is behind.
    `scores` are those that packed rows keep, each with the setting that asks for it. Raises what reading and tokenising
    raise; then nothing is kept but finished shards.
    """
    options = {"assistant_only": assistant_only, "sequence_length": sequence_length, "budget": budget}
    ordered: dict[str, Any] = {} if order is None else {"order": order.model_dump(mode="json")}
    ordered |= {"scores": sorted(scores)} if scores else {}
    ordered |= {"rewritten": reader.rewritten} if reader.rewritten else {}
    ordered |= {"behind": list(reader.behind)} if reader.behind else {}
    context = reader.context

    def make(work: Path, out: Path) -> dict[str, Any]:
        _make(reader, work, out, options, order, scores)
        return {}

    if context.shared is not None:
        code = context.shared.code(MODULE)
        return context.shared.get(KIND, recipe_of(reader, {**options, **ordered}, code), make).path.name
    work, out = (context.work / folder / reader.name for folder in (f"{KIND}.new", KIND))
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    work.mkdir(parents=True, exist_ok=True)
    make(work, out)
    shutil.rmtree(work)
    return reader.name


def open_prepared(context: StageContext, name: str) -> Prepared | None:
    """Return rows by their name, or None where they are not there or not whole."""
    from datasets import Dataset

    if context.shared is None:
        folder = context.work / KIND / name
    else:
        found: Artifact | None = context.shared.find(name)
        if found is None:
            return None
        folder = found.path
    if not read_mapping(folder / FACTS):
        return None
    return Prepared(folder, Dataset.from_file(str(folder / ROWS)))


def recipe_of(reader: Reader, options: Mapping[str, Any], code: str) -> dict[str, Any]:
    """Return all that decides the tokens of a reader. Two that differ in any of it share nothing."""
    context, role = reader.context, reader.role
    sampled = sampled_input(context) if role in SAMPLED_FILES else None
    cleaned = context.inputs.get(PREFIX + role)
    if sampled is not None:
        rows: Any = digest_file(sampled.path / SAMPLED_FILES[role])
    else:
        rows = context.corpus.identity([role]) if cleaned is None else [cleaned.fingerprint, cleaned.digest]
    return {
        "schema": SCHEMA, "kind": KIND, "role": role, "rows": rows,
        "exam": context.corpus.identity(list(context.corpus.exam_roles(role))),
        **({"benchmarks": digest_of(context.benchmarks)} if context.benchmarks and cleaned is None else {}),
        "tokenizer": fingerprint_of_tokenizer(reader.tokenizer), "chat_only": reader.chat_only,
        "seed": context.config.seed, "code": code, **options, **({"source": reader.source} if reader.source else {}),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }  # fmt: skip


def fingerprint_of_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the digest of all files that a tokenizer saves: its model, its added tokens, its chat template."""
    digests: dict[str, str] = {"class": type(tokenizer).__qualname__}
    with tempfile.TemporaryDirectory() as place:
        tokenizer.save_pretrained(place)
        for path in sorted(path for path in Path(place).rglob("*") if path.is_file()):
            data = path.read_bytes()
            if path.name in NOT_TOKENS:
                facts = {key: value for key, value in json.loads(data).items() if key not in NOT_TOKENS[path.name]}
                data = json.dumps(facts, sort_keys=True).encode()
            digests[path.relative_to(place).as_posix()] = hashlib.sha256(data).hexdigest()
    return fingerprint_of(digests)


def _make(
    reader: Reader, work: Path, out: Path, options: Mapping[str, Any], order: CurriculumSettings | None,
    scores: Mapping[str, str],
) -> None:  # fmt: skip
    """Write the packed rows of a reader, their samples and counts to `out`. What is done so far is kept in `work`."""
    by = {} if order is None or order.by == LENGTH else {order.by: "mixture.curriculum.by"}
    asked = {**by, **scores}
    shards = TokenShards(work / "shards")
    if not (shards.state or {}).get("closed"):
        _tokenise(reader, shards, work, scores=asked, **options)
    assert shards.state is not None, "the last shard says that it is the last"
    names = list(asked)
    places = None if order is None else _ordered(shards, order, names)
    shards.pack(options["sequence_length"], out / ROWS, places, names if scores else ())
    facts = {"samples": shards.first(SAMPLES), "counts": shards.state["closed"]}
    write_json(out / FACTS, facts | ({"position": shards.state["position"]} if reader.behind else {}))


def _ordered(shards: TokenShards, order: CurriculumSettings, scores: Sequence[str]) -> np.ndarray:
    """Return the places of the documents in an order; those that are equal in it stay as they are shuffled."""
    import numpy as np

    values = shards.lengths() if order.by == LENGTH else shards.scores()[:, scores.index(order.by)]
    return np.argsort(values if order.direction == "ascending" else -values, kind="stable")


def _tokenise(
    reader: Reader, shards: TokenShards, work: Path, *, assistant_only: bool, sequence_length: int, budget: int | None,
    scores: Mapping[str, str],
) -> None:  # fmt: skip
    """Write the tokens of a reader as shards, behind those that are there; the last one has the closed accounts.

    What is passed over is in no shard. One without documents then says how far reading has come.
    """
    reader.go_on(shards.state, work)
    known = reader.num_passed  # by the last shard
    for batch in reader.batches(assistant_only=assistant_only, sequence_length=sequence_length, scores=scores):
        for row in batch.rows:
            shards.add(row)
            if budget is not None and reader.num_tokens >= budget:
                reader.cut_short = True
                break
        else:
            if batch.ends_a_row and shards.is_due(reader.num_passed - known):
                shards.finish(reader.state)
                known = reader.num_passed
            continue
        break
    if not reader.num_passed:  # or all documents have been read by the stages before
        require_rows(range(shards.documents), reader)
    position = reader.position()
    closed = [count.as_dict() for count in reader.finish(0.0)]
    shards.finish({"closed": closed} | ({"position": position} if reader.behind else {}))
