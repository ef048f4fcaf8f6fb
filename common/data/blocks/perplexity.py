"""Leave out texts that a reference model finds unlikely: above a perplexity, or all but the likeliest share.

Usage: in a manifest, `blocks: [{perplexity: {model: models/medical.bin, lowest: 0.1}}]`, or `{perplexity: {checkpoint:
./small, keep_all: true}}`.

The model is an n-gram model of KenLM (`lmplz` makes one of texts that are good), in a file below the data folder; the
library kenlm must be installed. Scoring is datatrove's KenlmModel: ten to the mean negative log10 likelihood per
token, ends of lines included. Without `sentencepiece` tokens are words and signs as `common.data.words` cuts them; a
model that was made of other tokens gives other perplexities. With a `checkpoint` it is that language model's: e to the
mean loss per token, of the first `longest` tokens. It trains no model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from common.config.base import Share
from common.config.blocks import Block, BlockContext, BlockSettings, Drop, Row, Task
from common.config.names import NonEmpty
from common.data.data_files import data_file
from common.data.shards import write_array
from common.data.texts import with_score
from common.data.words import written_words
from common.errors import DataError
from common.models.reference import load_reference, require_folder

LIMIT = "limit.npy"
MOST_LOSS = 80.0  # nats, beyond which numbers are of no use


class PerplexitySettings(BlockSettings):
    """The reference model, and which perplexities stay."""

    model: NonEmpty | None = Field(
        None, description="file of a KenLM model (.bin or .arpa) below the data folder; or give checkpoint"
    )
    checkpoint: NonEmpty | None = Field(
        None, description="folder of a language model, such as a result of a chain, whose perplexity it is"
    )
    longest: int = Field(2048, ge=16, le=131_072, description="tokens of a text that a checkpoint reads")
    sentencepiece: NonEmpty | None = Field(
        None, description="file of the SentencePiece model that the model's tokens are of, below the data folder"
    )
    ccnet: bool = Field(False, description="normalise texts as CCNet did for its models: case, digits, accents, signs")
    lower: bool = Field(False, description="score texts in small letters, for a model that was made of such")
    highest: float | None = Field(None, gt=0, description="perplexity above which rows go")
    least: float | None = Field(None, gt=0, description="perplexity below which rows go: lists and templates")
    lowest: Share | None = Field(None, gt=0, description="share of the rows to keep, those of lowest perplexity")
    keep_all: bool = Field(False, description="drop none, and only leave the perplexity on rows")

    @model_validator(mode="after")
    def _limits(self) -> PerplexitySettings:
        if (self.model is None) == (self.checkpoint is None):
            raise ValueError("perplexity is that of a model (KenLM) or of a checkpoint; give one of them")
        if self.checkpoint is not None and (self.sentencepiece is not None or self.ccnet or self.lower):
            raise ValueError("sentencepiece, ccnet and lower are for a KenLM model; a checkpoint reads its own tokens")
        drops = self.highest is not None or self.least is not None or self.lowest is not None
        if not drops and not self.keep_all:
            raise ValueError("perplexity needs highest, least or lowest, or nothing would be dropped (keep_all: true)")
        if drops and self.keep_all:
            raise ValueError("keep_all drops none, and highest, least and lowest say which go; keep one of them")
        if self.highest is not None and self.least is not None and self.least > self.highest:
            raise ValueError(f"least is {self.least:g}, which is above highest, {self.highest:g}")
        return self


@dataclass(frozen=True)
class ByPerplexity:
    """Scores all rows, finds the limit of the likeliest share, then judges by the scores."""

    settings: PerplexitySettings
    context: BlockContext

    def look(self, task: Task, rows: Iterator[Row]) -> Iterator[Row]:
        """Yield the rows, and write the perplexity of each."""
        import numpy as np

        score, scores = scorer(self.settings, self.context), list[float]()
        for row in rows:
            scores.append(score(row["text"]))
            yield row
        write_array(self._scores(task.number), np.array(scores, np.float64))

    def decide(self, tasks: int) -> None:
        """Write the highest perplexity among the share to keep."""
        import numpy as np

        limit = np.inf
        if self.settings.lowest is not None:
            scores = np.concatenate([np.zeros(0), *(np.load(self._scores(number)) for number in range(tasks))])
            if len(scores):
                place = max(0, int(np.ceil(self.settings.lowest * len(scores))) - 1)
                limit = np.partition(scores, place)[place]
        write_array(self.context.folder / LIMIT, np.array(limit))

    def judge(self, task: Task) -> Callable[[int, Row], Row | Drop]:
        """Return what judges a row by its perplexity."""
        import numpy as np

        scores, limit = np.load(self._scores(task.number)), float(np.load(self.context.folder / LIMIT))
        highest, least = self.settings.highest, self.settings.least

        def judge(place: int, row: Row) -> Row | Drop:
            score = float(scores[place])
            if highest is not None and score > highest:
                return Drop("perplexity too high", f"{score:.1f}")
            if least is not None and score < least:
                return Drop("perplexity too low", f"{score:.1f}")
            if score > limit:
                return Drop("not among the lowest perplexities", f"{score:.1f}")
            return with_score(row, "perplexity", score)

        return judge

    def _scores(self, task: int) -> Path:
        return self.context.folder / f"scores-{task:05d}.npy"


def scorer(settings: PerplexitySettings, context: BlockContext) -> Callable[[str], float]:
    """Return what gives a text its perplexity. Raises DataError where library or model cannot be loaded."""
    if settings.checkpoint is not None:
        return _by_checkpoint(settings.checkpoint, settings.longest)
    assert settings.model is not None, "one of the two is given"
    from datatrove.utils.perplexity import KenlmModel

    model = KenlmModel("", "")  # its names are those of files to download; these are at hand
    model._model = _kenlm(data_file(context, settings.model, "perplexity.model"))
    model._tokenizer = _Words() if settings.sentencepiece is None else _pieces(settings.sentencepiece, context)

    def score(text: str) -> float:
        text = text.lower() if settings.lower else text
        return float(model.get_perplexity(text, normalize_cc_net=settings.ccnet))

    return score


def _by_checkpoint(folder: str, longest: int) -> Callable[[str], float]:
    """Return what gives a text its perplexity under a language model; the highest for one without tokens."""
    import torch

    from common.models.special_tokens import document_start

    model, tokenizer = load_reference(folder)
    model.eval()
    start = document_start(tokenizer)
    longest = min(longest, getattr(model.config, "max_position_embeddings", None) or longest)

    def score(text: str) -> float:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"][: longest - 1]
        if not ids:
            return math.exp(MOST_LOSS)
        with torch.no_grad():
            logits_TV = model(input_ids=torch.tensor([[start, *ids]]), use_cache=False).logits[0, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits_TV, torch.tensor(ids))
        return math.exp(min(MOST_LOSS, round(float(loss), 4)))  # rounded, so that the number of threads changes little

    return score


class _Words:
    """Writes a text as KenLM reads it: words and signs with blanks between them, line by line."""

    def tokenize(self, text: str) -> str:
        """Return the tokens of a text."""
        return "\n".join(" ".join(written_words(line)) for line in text.split("\n") if line.strip())


def _pieces(name: str, context: BlockContext) -> Any:
    """Return datatrove's tokenizer with a SentencePiece model from a file."""
    from datatrove.utils.perplexity import SentencePiece

    path = data_file(context, name, "perplexity.sentencepiece")
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError:
        raise DataError(
            "perplexity.sentencepiece needs the library sentencepiece, which is not installed. Install it."
        ) from None
    pieces = SentencePiece("", "")
    try:
        pieces._model = SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise DataError(f"perplexity.sentencepiece: {name} cannot be loaded: {error}") from error
    return pieces


def _kenlm(path: Path) -> Any:
    try:
        import kenlm  # type: ignore[import-not-found, unused-ignore]  # an extra, often not installed
    except ImportError:
        raise DataError(
            "The block perplexity needs the library kenlm, which is not installed. Install it, or remove the block."
        ) from None
    options = kenlm.Config()
    options.show_progress = False
    try:
        return kenlm.Model(str(path), options)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"perplexity.model: {path.name} is no KenLM model of two orders or more that can be loaded. Make it with "
            "lmplz and build_binary of the same version."
        ) from error


def look(settings: PerplexitySettings, context: BlockContext) -> ByPerplexity:
    """Return the two passes over the rows. Raises ConfigError for a folder that is none."""
    if settings.checkpoint is not None:
        require_folder(settings.checkpoint, "perplexity.checkpoint")
    return ByPerplexity(settings, context)


BLOCK = Block(
    name="perplexity", settings=PerplexitySettings, look=look, scores=lambda settings: ("perplexity",),
    phrase="texts that a reference model finds unlikely",
    files=lambda settings: [name for name in (settings.model, settings.sentencepiece) if name],
    checkpoints=lambda settings: [settings.checkpoint] if settings.checkpoint else [],
    paper="Wenzek et al. 2020, arXiv:1911.00359 (CCNet); Guo et al. 2024, arXiv:2406.14833 (stability gap)",
)  # fmt: skip
