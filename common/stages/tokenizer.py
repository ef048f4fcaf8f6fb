"""Further tokens for the words of a domain, learned from its text, with rows that start from those of their old pieces.

Usage: named by a pipeline as `vocabulary: {kind: tokenizer, from: base}`, before a stage of kind cpt.

Cabrita (arXiv 2308.11878) and SNFinLLM (arXiv 2408.02302) extend a vocabulary so; how the tokens are learned is
`common.models.continued_bpe`. Old tokens keep their ids, rows and logits, and text without a new token is cut as
before. It trains no weight: give the new rows a stage with `train_only: embeddings`, or let CPT train all.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from common.config.kinds import Kind
from common.config.vocabulary import TokenizerSettings
from common.data.accounting import RowCount
from common.data.words import count_words
from common.errors import ConfigError
from common.models import checkpoint, contracts
from common.models.continued_bpe import learn, require_extensible
from common.models.control_tokens import reader_of
from common.models.learned_tokens import Learned
from common.models.pieces import BROKEN
from common.models.special_tokens import num_ids
from common.models.vocabulary import extend_tokenizer, give_rows
from common.stage import StageContext, StageReport
from common.training.fit import TrainResult, check_and_save, text_probe
from common.training.rows.reader import Accounts, read_role

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROLE = "cpt"
SIDES = ("domain", "general")
EXAMPLES = 8  # new tokens that the card shows
MOST_CHARACTERS = 2_000_000  # of held-out text, of a side, that are cut with both tokenizers


class Extension(NamedTuple):
    """A tokenizer with further tokens, and where they come from."""

    tokenizer: PreTrainedTokenizerBase
    learned: Learned
    counts: list[RowCount]


def run(context: StageContext) -> StageReport:
    """Return the parent with a larger vocabulary."""
    settings = cast(TokenizerSettings, context.settings)
    model, parent = checkpoint.load(context.parent_artifact.path, context.config.model)
    extension = extend(context, parent)
    assert extension is not None, "the whole text is read here"
    tokenizer, probe = extension.tokenizer, text_probe(parent)
    contracts.check_extended_tokenizer(tokenizer, parent)
    cuts = list(_cuts(context, parent, tokenizer))
    before_TV, rows = contracts.probe_logits(model, probe), model.get_input_embeddings().weight.shape[0]
    give_rows(
        model, parent, tokenizer, extension.learned,
        initialise=settings.initialise, pad_to_multiple_of=settings.pad_to_multiple_of,
    )  # fmt: skip
    difference = contracts.check_extended_model(before_TV, contracts.probe_logits(model, probe), num_ids(parent))
    check_and_save(context, TrainResult(model), tokenizer, probe=probe)
    saved = checkpoint.load_tokenizer(context.out, context.config.model)
    contracts.check_extended_tokenizer(saved, tokenizer)
    added = len(extension.learned.pieces)
    context.console.line(f"  {context.stage}: {added:,} new tokens, {num_ids(parent):,} -> {num_ids(tokenizer):,}")
    metrics = {
        "added": added, "asked": settings.add, "ids": {"before": num_ids(parent), "after": num_ids(tokenizer)},
        "rows": {"before": rows, "after": model.get_input_embeddings().weight.shape[0]},
        "parameters": model.num_parameters(), "cut": cuts, "logit_difference": difference,
        "examples": _examples(parent, extension.learned),
    }  # fmt: skip
    return StageReport(metrics, rows=[one.as_dict() for one in extension.counts], sources=context.corpus.sources())


def extend(context: StageContext, parent: PreTrainedTokenizerBase, *, whole: bool = True) -> Extension | None:
    """Return the parent's tokenizer with the tokens that it lacks for the domain's text.

    Raises ConfigError for a tokenizer that cannot be extended, and for one that lacks nothing; where the text is not
    `whole`, None.
    """
    settings = cast(TokenizerSettings, context.settings)
    require_extensible(parent, context.stage)
    accounts = Accounts(ROLE)
    texts = list(_texts(context, accounts, settings.characters))
    learned = learn(parent, texts, add=settings.add, min_frequency=settings.min_frequency)
    if not learned.pieces:
        if not whole:
            return None
        raise ConfigError(
            f"Stage {context.stage} has no token to add: the tokenizer has the words of the domain already. In "
            f"{sum(map(len, texts)):,} characters no two of its tokens stand side by side {settings.min_frequency} "
            f"times ({context.stage}.min_frequency). Lower it, give more text, or use a pipeline without this stage."
        )
    return Extension(
        extend_tokenizer(parent, learned, context.config.model), learned, accounts.close(context, budgeted=True)
    )


def _texts(context: StageContext, accounts: Accounts, characters: int) -> Iterator[str]:
    """Yield the texts of the domain that repeat nothing of the exam, shuffled, up to a number of characters."""
    for row in read_role(context, ROLE, accounts):
        if "text" not in row:
            continue
        accounts[row["source"]].rows_out += 1
        yield row["text"]
        characters -= len(row["text"])
        if characters <= 0:
            return


def _cuts(
    context: StageContext, parent: PreTrainedTokenizerBase, tokenizer: PreTrainedTokenizerBase
) -> Iterator[dict[str, Any]]:
    """Yield how held-out texts are cut before and after: of both sides, and of each language where there are several.

    Raises ContractError where a text without a new token is cut in another way.
    """
    for side in SIDES:
        rows = list(_held_out(context, side))
        if not rows:
            continue
        texts = [row["text"] for row in rows]
        before, after = (encode(one, texts) for one in (parent, tokenizer))
        contracts.check_cut(before, after, num_ids(parent))
        cut = list(zip(texts, before, after, strict=True))
        yield {"side": side, **_measured(cut, num_ids(parent))}
        languages = [str(row.get("language") or "") for row in rows]
        for language in sorted(set(languages)) if len(set(languages)) > 1 else ():
            own = [one for one, found in zip(cut, languages, strict=True) if found == language]
            yield {"side": side, "language": language, **_measured(own, num_ids(parent))}


def _examples(parent: PreTrainedTokenizerBase, learned: Learned) -> list[str]:
    """Return the new tokens that replace the most old ones, as text; half characters are left out."""
    longest = sorted(learned.pieces.values(), key=len, reverse=True)
    texts = (parent.decode(list(pieces)).strip() for pieces in longest)
    return list(itertools.islice((text for text in texts if text and BROKEN not in text), EXAMPLES))


def _held_out(context: StageContext, side: str) -> Iterator[dict[str, Any]]:
    left = MOST_CHARACTERS
    for row in context.corpus.rows(f"text_{side}"):
        if (left := left - len(row["text"])) < 0:
            return
        yield row


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Return texts as ids, without what a tokenizer puts around them; names of control tokens are text."""
    reader = reader_of(tokenizer)
    return reader.encode([reader.mark(text) for text in texts])


def _measured(cut: Sequence[tuple[str, list[int], list[int]]], known: int) -> dict[str, Any]:
    """Return the size of texts, their tokens before and after, and the share of old tokens that new ones replace."""
    old, kept = (sum(len(before) for _, before, _ in cut), sum(one < known for _, _, after in cut for one in after))
    return {
        "texts": len(cut), "characters": sum(len(text) for text, _, _ in cut),
        "words": sum(count_words(text) for text, _, _ in cut),
        "bytes": sum(len(text.encode("utf-8", "replace")) for text, _, _ in cut),
        "before": old, "after": sum(len(after) for _, _, after in cut), "replaced": 1 - kept / old if old else 0.0,
    }  # fmt: skip


def reshape(settings: TokenizerSettings, config: Mapping[str, Any], stage: str) -> Mapping[str, Any]:
    """Return the config.json of the result if all tokens that are asked for are added."""
    if "vocab_size" not in config:
        return config
    step = settings.pad_to_multiple_of or 1
    return {**config, "vocab_size": -(-(config["vocab_size"] + settings.add) // step) * step}


KIND = Kind(
    name="tokenizer", settings=TokenizerSettings, run=run, roles=(ROLE,), reshapes=reshape, changes_tokenizer=True,
    on_gpu=False,
    phrase="a vocabulary extended by words of the domain",
)  # fmt: skip
