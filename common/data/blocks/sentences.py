"""Take runs of sentences out of a text that came before, as a notice that stands on every page; C4 did so.

Usage: in a manifest, `blocks: [{sentences: {run: 3, least: 50}}]`.

Sentences are compared by their words. The first place of a run is kept, every other one goes, and the rest of the text
stays as it is; a row that has too few words left goes as a whole. It is for text rows: chats repeat what is said to
every one of them, and need it. Sentences of any script are those of `common.data.duplicates.splitting`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from common.config.blocks import TEXT, Block, BlockContext, BlockSettings, Drop, Row
from common.config.names import NonEmpty
from common.data.duplicates.records import Records, SortedFile, group_heads, in_key_order, sort_records
from common.data.duplicates.search import Note, Part, Parts, TwoPassSearch
from common.data.duplicates.splitting import hashing, unchanged, word_tokenizer
from common.data.texts import noted
from common.data.words import count_words

_KEYS = "keys"
_RECORD = np.dtype([("key", "<u8"), ("place", "<u4"), ("sentence", "<u4")])  # a run, by its first sentence
_CUT = np.dtype([("place", "<u4"), ("sentence", "<u4"), ("other", "<u8")])  # and the row that has it too


class SentencesSettings(BlockSettings):
    """Which runs go, and what must be left."""

    run: int = Field(3, ge=1, description="sentences in a row that must be the same")
    least: int = Field(50, ge=0, description="words that must be left of a row that was cut, or it goes")
    against: tuple[NonEmpty, ...] = Field((), description="roles of earlier stages whose rows count as seen")


def look(settings: SentencesSettings, context: BlockContext) -> TwoPassSearch:
    """Return what finds runs of sentences that come more than once."""
    return TwoPassSearch(settings, context, settings.against, _noting, _decide, _judge)


def _config(settings: SentencesSettings) -> Any:
    from datatrove.pipeline.dedup.sentence_dedup import SentDedupConfig

    return SentDedupConfig(n_sentences=settings.run, norm_config=unchanged(), hash_config=hashing())


@contextmanager
def _noting(settings: SentencesSettings, folder: Path) -> Iterator[Note]:
    """Note each run of sentences of each row; sorted at the end."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup.sentence_dedup import SentenceDedupSignature

    step = SentenceDedupSignature(str(folder), config=_config(settings), language=word_tokenizer())
    runs, rows = bytearray(), 0

    def note(row: Row) -> None:
        nonlocal rows
        if "text" in row:
            runs.extend(np.array(step.get_hashes(Document(row["text"], ""), rows), _RECORD).tobytes())
        rows += 1

    yield note
    sort_records(np.frombuffer(runs, _RECORD)).tofile(folder / _KEYS)


def _decide(settings: SentencesSettings, parts: Parts, folder: Path) -> None:
    files = []
    for part in parts.all:
        path = part.folder / _KEYS
        files.append(SortedFile(path, 0, path.stat().st_size // _RECORD.itemsize, part.offset))
    for records in in_key_order(files, _RECORD):
        heads = group_heads(records, ["key"])
        first = records[heads]
        again = heads < np.arange(len(records))
        # A run that the kept one covers in part repeats itself: "ha, ha, ha, ha" is kept with it.
        again &= (records["row"] != first["row"]) | (records["sentence"] >= first["sentence"] + settings.run)
        _write_cuts(parts, folder, records[again], first["row"][again])


def _write_cuts(parts: Parts, folder: Path, runs: Records, others: Records) -> None:
    holding = np.searchsorted(parts.offsets, runs["row"], side="right") - 1
    for number in np.unique(holding):
        part, here = parts.all[number], holding == number
        if part.role is None:
            cuts = np.empty(int(here.sum()), _CUT)
            cuts["place"], cuts["sentence"] = runs["row"][here] - np.uint64(part.offset), runs["sentence"][here]
            cuts["other"] = others[here]
            with (folder / part.folder.name).open("ab") as file:
                cuts.tofile(file)


def _judge(settings: SentencesSettings, parts: Parts, folder: Path, part: Part) -> Callable[[int, Row], Row | Drop]:
    from datatrove.data import Document
    from datatrove.pipeline.dedup.sentence_dedup import SentenceDedupFilter

    step = SentenceDedupFilter(str(folder), config=_config(settings), language=word_tokenizer())
    path = folder / part.folder.name
    cuts = sort_records(np.fromfile(path, _CUT) if path.exists() else np.empty(0, _CUT))
    places = np.ascontiguousarray(cuts["place"])

    def judge(place: int, row: Row) -> Row | Drop:
        start, end = np.searchsorted(places, [place, place + 1])
        if start == end:
            return row
        text, _ = step.remove_dup_sentences(Document(row["text"], ""), np.unique(cuts["sentence"][start:end]))
        text = text.rstrip()
        if count_words(text) < settings.least or not text:
            found = f"{count_words(text):.0f} words left without what is in "
            return parts.drop("repeated sentences", int(cuts["other"][start]), found)
        return noted({**row, "text": text}, "repeated sentences taken out")

    return judge


BLOCK = Block(
    name="sentences", settings=SentencesSettings, look=look, rows=TEXT, phrase="runs of sentences that came before",
    roles=lambda settings: settings.against, paper="arXiv 1910.10683",
)  # fmt: skip
