"""Turn texts and conversations into rows of equal length whose documents cannot see each other.

Usage:
    rows = tokenise(tokenizer, corpus_rows, accounts, assistant_only=False, sequence_length=128)
    batch = RowCollator(pad_id, 128)(packed_rows[:16])   # columns input_ids, labels, seq_lengths

Isolation is by position ids that restart at each document, in a (batch, length) form: transformers turns them
into a block-diagonal mask when the forward runs without a cache. A test checks it by logits.
Shapes: B rows of a batch, T tokens of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from common.data.texts import texts_of
from common.data.words import pieces_of_text
from common.models.control_tokens import READ_AS_TEXT, reader_of
from common.models.turns import TOO_LONG, encode_turns
from common.training.rows.shards import SCORE, TokenRow
from common.training.rows.taught import PLACE, TopKStore, learned_in
from common.training.rows.witness import NOBODY, Witness

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from common.data.accounting import RowCount

_T = TypeVar("_T")

Marked = tuple[list[bool], str] | None  # what of a conversation is learned and what that is called, where it changes
Mark = Callable[[Mapping[str, Any], Sequence[bool]], Marked]

IGNORED = -100  # label of a token that carries no loss
PARTS = "parts"  # column of packed rows: into how many rows of equal length each is cut when it is read
BATCH = 1000
BATCH_SIZE = 2**20  # characters, or tokens, of a batch: a thousand long documents would take gigabytes
LONG = 2**18  # characters of a text that are tokenised at once: a token of it takes about 400 bytes
NOTHING_TO_LEARN = "nothing to learn from"


def tokenise(
    tokenizer: PreTrainedTokenizerBase, rows: Iterable[dict[str, Any]], accounts: Mapping[str, RowCount], *,
    assistant_only: bool, sequence_length: int | None = None, witness: Witness = NOBODY,
) -> Iterator[TokenRow]:  # fmt: skip
    """Yield token rows; `assistant_only` masks all but the assistant's tokens in conversations.

    A conversation whose turns cannot be found is left out (`common.models.turns`). One longer than
    `sequence_length` is dropped whole rather than cut, since the cut would take the answer. The account of its source
    counts both. TRL, which gets rows of any length, cuts or splits them itself. A text of more than LONG characters
    comes in several token rows, so that who has a budget of tokens may stop within it. `witness` hears of every row.
    """
    options: dict[str, Any] = {"assistant_only": assistant_only, "sequence_length": sequence_length}
    for batch in tokenised_batches(tokenizer, rows, accounts, witness=witness, **options):
        yield from batch.rows


class TokenBatch(NamedTuple):
    """Token rows that were encoded together, counted as they are taken."""

    rows: Iterator[TokenRow]
    ends_a_row: bool  # or the last text goes on in the next batch


def tokenised_batches(
    tokenizer: PreTrainedTokenizerBase, rows: Iterable[dict[str, Any]], accounts: Mapping[str, RowCount], *,
    assistant_only: bool, sequence_length: int | None = None, witness: Witness = NOBODY, scores: Sequence[str] = (),
    marks: Sequence[Mark] = (),
) -> Iterator[TokenBatch]:  # fmt: skip
    """Yield the same in batches, with some scores of each row, which it has; no row behind a batch has been read before
    the next one. What was done with a row before, its `changed`, counts here. `marks` change what is learned.
    """
    counted: set[str] = set()  # of the text that comes in pieces
    encoded = partial(_encode, tokenizer, assistant_only=assistant_only, sequence_length=sequence_length, marks=marks)

    def count(batch: Sequence[dict[str, Any]]) -> Iterator[TokenRow]:
        nonlocal counted
        for row, found in zip(batch, encoded(batch), strict=True):
            count = accounts[row["source"]]
            if isinstance(found, str):
                witness.drop(count, row, found)
                continue
            ids, labels, changed = found
            changed = (*row.get("changed", ()), *changed)
            begins, in_pieces = row.get("piece", WHOLE).first, "piece" in row
            counted = set() if begins else counted
            if not in_pieces and all(label == IGNORED for label in labels[1:]):
                witness.drop(count, row, NOTHING_TO_LEARN)
                continue
            for what in set(changed) - counted:
                count.change(what)
            counted.update(changed)
            count.rows_out += begins
            count.tokens += len(ids)
            witness.kept(count, row, ids, labels, changed)
            yield TokenRow(ids, labels, [row["scores"][name] for name in scores])

    for batch in _batches(_in_pieces(tokenizer, rows, accounts, sequence_length, witness), _num_characters):
        yield TokenBatch(count(batch), batch[-1].get("piece", WHOLE).last)


class Piece(NamedTuple):
    """Whether a part of a text is its beginning, and whether its end."""

    first: bool
    last: bool


WHOLE = Piece(True, True)


def _in_pieces(
    tokenizer: PreTrainedTokenizerBase, rows: Iterable[dict[str, Any]], accounts: Mapping[str, RowCount],
    sequence_length: int | None, witness: Witness,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Yield rows; a long text comes in pieces, and a conversation that no sequence could hold is dropped unread.

    A piece ends before a blank where it has one, as words do for every tokenizer: their tokens together are those of
    the text, but for what a tokenizer puts before a text of its own accord.
    """
    longest = 0  # characters of a token
    for row in rows:
        size = _num_characters(row)
        if size <= LONG:
            yield row
        elif "text" not in row:
            longest = longest or max(map(len, tokenizer.get_vocab()))
            if sequence_length is not None and size > sequence_length * longest:
                witness.drop(accounts[row["source"]], row, TOO_LONG)
            else:
                yield row
        else:
            read = 0
            for text in pieces_of_text(row["text"], LONG):
                read += len(text)
                yield row | {"text": text, "piece": Piece(read == len(text), read == size)}


def _num_characters(row: dict[str, Any]) -> int:
    return sum(map(len, texts_of(row)))


def _encode(
    tokenizer: PreTrainedTokenizerBase, batch: Sequence[dict[str, Any]], *, assistant_only: bool,
    sequence_length: int | None, marks: Sequence[Mark],
) -> Iterator[tuple[list[int], list[int], tuple[str, ...]] | str]:  # fmt: skip
    """Yield (input_ids, labels, changed) of each row of a batch, or why it has none. All are encoded at once.

    A text begins as the tokenizer begins one, and ends in its end-of-sequence token. Names of control tokens in
    it are read as text.
    """
    reader, end = reader_of(tokenizer), tokenizer.eos_token_id
    for source, asked in {row["source"]: row["control_tokens"] for row in batch if "control_tokens" in row}.items():
        reader.require(asked, source)
    texts = [(row["text"], reader.mark(row["text"], row.get("control_tokens", ()))) for row in batch if "text" in row]
    pieces = [row.get("piece", WHOLE) for row in batch if "text" in row]
    beginning = iter(reader.encode([t[1] for t, piece in zip(texts, pieces, strict=True) if piece.first], whole=True))
    encoded = zip(texts, pieces, strict=True)
    chats = encode_turns(
        tokenizer, [row for row in batch if "text" not in row], assistant_only=assistant_only,
        sequence_length=sequence_length,
    )  # fmt: skip
    for row in batch:
        if "text" in row:
            (text, marked), piece = next(encoded)
            ids = next(beginning) if piece.first else reader.encode([marked])[0]
            ended = ids[-1:] == [end]
            if ended and not piece.last:
                ids.pop()
            elif piece.last and not ended:
                ids.append(end)
            yield ids, ids, (READ_AS_TEXT,) * (marked != text)
            continue
        found = next(chats)
        if isinstance(found, str):
            yield found
            continue
        learned, changed = found.learned, found.changed
        for apply in marks:
            if (other := apply(row, learned)) is not None:
                learned, changed = other[0], (*changed, other[1])
        yield found.ids, mask(found.ids, learned), changed


def mask(ids: Sequence[int], learned: Sequence[bool]) -> list[int]:
    """Return the tokens that are learned, and IGNORED in place of the others."""
    return [token if mark else IGNORED for token, mark in zip(ids, learned, strict=True)]


def _batches(rows: Iterable[_T], size_of: Callable[[_T], int]) -> Iterator[list[_T]]:
    """Yield rows in lists that are short in number and in size."""
    batch: list[_T] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += size_of(row)
        if len(batch) == BATCH or size >= BATCH_SIZE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def interleave(num_domain: int, num_replay: int, *, total: int, replay: float, seed: int) -> np.ndarray:
    """Return the order of training rows: indices into domain rows followed by replay rows, `total` long.

    A share `replay` of the order comes from the replay rows. Each side is used up in a fresh shuffle before any
    of its rows comes again, and the sides are mixed evenly at random: Ibrahim et al. 2024, section 3 (replay).
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    from_replay = round(total * replay) if num_replay else 0
    own = shuffled_passes(num_domain, total - from_replay, rng)
    order = np.concatenate([own, shuffled_passes(num_replay, from_replay, rng) + num_domain])
    rng.shuffle(order)
    return order


def shuffled_passes(size: int, total: int, rng: np.random.Generator) -> np.ndarray:
    """Return `total` places below `size`, in shuffled passes."""
    import numpy as np

    passes = -(-total // size) if size else 0
    return np.concatenate([np.zeros(0, np.int64), *(rng.permutation(size) for _ in range(passes))])[:total]


def starts_of(row: Mapping[str, Any], sequence_length: int) -> np.ndarray:
    """Return where the documents of a packed row begin, the padding behind them among these, and where the row ends.

    A row that is read in parts (`PARTS`) has beginnings where it is cut.
    """
    import numpy as np

    starts = np.cumsum([0, *row["seq_lengths"]])
    if starts[-1] < sequence_length:
        starts = np.append(starts, sequence_length)
    number = row.get(PARTS, 1)
    return starts if number == 1 else np.union1d(starts, np.arange(number) * (sequence_length // number))


@dataclass
class RowCollator:
    """Pad packed rows to one length and number each document's positions from zero."""

    pad_id: int
    sequence_length: int
    scores: Sequence[str] = ()  # of documents, which each of their positions gets
    kept: TopKStore | None = None  # of a teacher, for rows that say their place

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return input_ids, labels and position_ids, each (B, T) int64. Padding is a document of its own.

        Rows that are read in n parts, all of them alike, are (B n, T / n). Each score is float32 under its column's
        name, NaN in padding and where a document has none. What was kept of a teacher is (B, T, K) and (B, T).
        """
        import numpy as np
        import torch

        shape = (len(rows), self.sequence_length)
        ids_BT = np.full(shape, self.pad_id, dtype=np.int64)
        labels_BT = np.full(shape, IGNORED, dtype=np.int64)
        positions_BT = np.zeros(shape, dtype=np.int64)
        for number, row in enumerate(rows):
            length = len(row["input_ids"])
            ids_BT[number, :length] = row["input_ids"]
            labels_BT[number, :length] = row["labels"]
            starts = starts_of(row, self.sequence_length)
            positions_BT[number] = np.arange(self.sequence_length) - np.repeat(starts[:-1], np.diff(starts))
            labels_BT[number, starts[:-1][starts[:-1] < length]] = IGNORED  # a first token follows nothing
        columns = {"input_ids": ids_BT, "labels": labels_BT, "position_ids": positions_BT}
        for name in (f"{SCORE}{score}" for score in self.scores):
            columns[name] = np.full(shape, np.nan, dtype=np.float32)
            for number, row in enumerate(rows):
                if row.get(name) is not None:
                    columns[name][number, : len(row["input_ids"])] = np.repeat(row[name], row["seq_lengths"])
        if self.kept is not None and PLACE in rows[0]:  # rows that never train have not been read by a teacher
            columns |= self.kept.columns([row[PLACE] for row in rows], learned_in(labels_BT))
        (number,) = {row.get(PARTS, 1) for row in rows}
        length = self.sequence_length // number
        return {name: torch.from_numpy(found).reshape(-1, length, *found.shape[2:]) for name, found in columns.items()}
