"""Learns the tokens that a tokenizer lacks for a domain, going on where its own training ended.

Usage: `learned = learn(tokenizer, texts, add=2000, min_frequency=20)`; `learned.pieces` are the new tokens.

Continued BPE (Purason et al. 2025, arXiv 2512.03989): texts are cut as the tokenizer cuts them, and the pairs of
neighbouring tokens that are most frequent are merged, one after the other, by the trainer of the library tokenizers. A
vocabulary learned apart and appended, as Cabrita's (arXiv 2308.11878), has tokens that no text reaches, since the old
merges come first. Here every token is reached, and is made of old tokens, whose rows it can start from. It changes no
tokenizer: that is `common.models.vocabulary`.
"""

from __future__ import annotations

import functools
import json
import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from common.errors import ConfigError
from common.models.learned_tokens import Learned, extended
from common.models.limits import in_time

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

SUPPORTED = "BPE on bytes, BPE of SentencePiece, and Unigram"
BLANK = "▁"  # of SentencePiece, at the beginning of a word
SYMBOLS = 0x10000  # of the character that stands for token 0; behind it there is no blank and no half of a character
BATCH = 1000  # texts that are cut at once


def fault_in(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return why a tokenizer cannot be extended; nothing where it can."""
    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is None:
        return f"it is a {type(tokenizer).__name__} without a tokenizer.json of the library tokenizers"
    model = json.loads(core.to_str())["model"]
    if model["type"] not in ("BPE", "Unigram"):
        return f"its model is {model['type']}"
    if affixes := [key for key in ("continuing_subword_prefix", "end_of_word_suffix") if model.get(key)]:
        return f"its BPE marks words by {affixes[0]}"
    return ""


def require_extensible(tokenizer: PreTrainedTokenizerBase, stage: str) -> None:
    """Check that a tokenizer is of a kind that can be extended. Raises ConfigError naming those that can."""
    if fault := fault_in(tokenizer):
        raise ConfigError(
            f"Stage {stage} cannot extend the tokenizer of this model: {fault}. Supported are {SUPPORTED}. Use a "
            "pipeline without a stage of kind tokenizer, or another checkpoint."
        )


def learn(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, add: int, min_frequency: int) -> Learned:
    """Return up to `add` tokens that shorten some texts, each seen at least `min_frequency` times as it was made.

    Of a vocabulary of characters, those that it lacks come first. Equal texts give equal tokens.
    """
    from tokenizers import Tokenizer

    core = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    core.no_truncation()
    core.no_padding()
    facts = json.loads(core.to_str())
    known, on_bytes = core.get_vocab(with_added_tokens=True), is_on_bytes(facts)
    characters = {} if on_bytes else _missing_characters(core, facts, texts, min_frequency)
    found = Learned(dict(list(characters.items())[:add]))
    if found.pieces:
        found.scores.update(dict.fromkeys(found.pieces, 0.0))  # for now: nothing else can write them
        core = Tokenizer.from_str(json.dumps(extended(facts, found)))
    words = _words(tokenizer, core, texts, on_bytes)
    trained = _trained(core, words, add - len(found.pieces), min_frequency)
    name_of = {index: name for name, index in core.get_vocab(with_added_tokens=True).items()}
    merged = _named(trained, name_of, known, found)
    if facts["model"]["type"] == "BPE":
        return merged
    return _scored(merged, _counts(trained, words, name_of), facts, min_frequency)


def is_on_bytes(facts: Mapping[str, Any]) -> bool:
    """Whether a tokenizer.json writes texts as bytes before it cuts them, so that it lacks no character."""
    return '"ByteLevel"' in json.dumps([facts["pre_tokenizer"], facts["normalizer"]])


def _missing_characters(
    core: Tokenizer, facts: Mapping[str, Any], texts: Sequence[str], min_frequency: int
) -> dict[str, tuple[int, ...]]:
    """Return the characters of texts that have no token, the most frequent first, with what stands for them so far."""
    vocabulary, model, counts = core.get_vocab(), facts["model"], Counter[str]()
    for text in texts:
        counts.update(text if core.normalizer is None else core.normalizer.normalize_str(text))
    unknown = model.get("unk_id") if model["type"] == "Unigram" else vocabulary.get(model.get("unk_token") or "")
    found = {}
    for character, number in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if number < min_frequency or character in vocabulary or not _is_letter(character):
            continue
        if model.get("byte_fallback"):
            found[character] = tuple(vocabulary[f"<0x{byte:02X}>"] for byte in character.encode())
        else:
            found[character] = () if unknown is None else (unknown,)
    return found


def _is_letter(text: str) -> bool:
    """Whether a text is letters and their marks alone."""
    return all(unicodedata.category(character)[0] in "LM" for character in text)


def _words(tokenizer: PreTrainedTokenizerBase, core: Tokenizer, texts: Sequence[str], on_bytes: bool) -> Counter[str]:
    """Return the words of texts and how often they stand there, each written with one character for a token.

    Where bytes are cut, the tokenizer's own pattern finds the words. One of SentencePiece has none, or blanks alone: a
    word is then a run of letters, as SentencePiece trains, so that no token holds a word and the comma behind it.
    """
    named, words = core.get_vocab(with_added_tokens=True), Counter[str]()
    symbols = {index: chr(SYMBOLS + index) for index in named.values()}
    apart = set() if on_bytes else {index for name, index in named.items() if not _is_part(name)}
    heads = set() if on_bytes else {index for name, index in named.items() if name.startswith(BLANK)}
    for start in range(0, len(texts), BATCH):
        batch = [text.encode("utf-8", "replace").decode() for text in texts[start : start + BATCH]]
        for encoded in in_time(tokenizer, functools.partial(core.encode_batch, batch, add_special_tokens=False), batch):
            line, before, joins = list[str](), None, False
            for index, word in zip(encoded.ids, encoded.word_ids, strict=True):
                alone = index in apart
                if not joins or alone or word != before or index in heads:
                    line.append(" ")
                line.append(symbols[index])
                before, joins = word, not alone
            words.update("".join(line).split())
    return words


def _is_part(name: str) -> bool:
    """Whether a token of SentencePiece may be part of a longer one: letters, or the blank before them."""
    return _is_letter(name.removeprefix(BLANK))


def _trained(core: Tokenizer, words: Mapping[str, int], add: int, min_frequency: int) -> Tokenizer:
    """Return a BPE over tokens as its characters."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    alphabet = [chr(SYMBOLS + index) for index in core.get_vocab(with_added_tokens=True).values()]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + add, min_frequency=min_frequency, initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator((" ".join([word] * number) for word, number in words.items()), trainer)
    return trained


def _named(trained: Tokenizer, name_of: Mapping[int, str], known: Mapping[str, int], found: Learned) -> Learned:
    """Return what was learned under the names that it has in the vocabulary, added to what was found before.

    A pair that makes a token which is there already is passed over, and so is what is made of it: whatever no new token
    touches is then cut as before. Two pairs may make one new token.
    """
    merges, lost = dict[tuple[str, str], None](), set[str]()

    def named(symbols: str) -> str:
        return "".join(name_of[ord(symbol) - SYMBOLS] for symbol in symbols)

    for left, right in map(tuple, json.loads(trained.to_str())["model"]["merges"]):
        name = named(left + right)
        if left in lost or right in lost or name in known:
            lost.add(left + right)
            continue
        old = [name_of[ord(symbol) - SYMBOLS] for symbol in left + right]
        parts = [found.pieces[part] if part in found.pieces else (known[part],) for part in old]
        found.pieces.setdefault(name, tuple(index for part in parts for index in part))
        merges[named(left), named(right)] = None
    return Learned(found.pieces, list(merges), found.scores)


def _counts(trained: Tokenizer, words: Counter[str], name_of: Mapping[int, str]) -> Counter[str]:
    """Return how often each token stands in the texts once all pairs are merged."""
    counts = Counter[str]()
    for word, number in words.items():
        for piece in trained.encode(word).tokens:
            counts["".join(name_of[ord(symbol) - SYMBOLS] for symbol in piece)] += number
    return counts


def _scored(found: Learned, counts: Counter[str], facts: Mapping[str, Any], min_frequency: int) -> Learned:
    """Return the tokens that a Unigram gains by: their share of the texts' tokens beats that of their pieces.

    log p(token) = log(count / all) is what its maximisation step gives (Kudo 2018, arXiv 1804.10959, section 3.2).
    """
    scores = [score for _, score in facts["model"]["vocab"]]
    lowest, kept = min(scores), Learned()
    for name, pieces in found.pieces.items():
        score = max(lowest, math.log(max(1, counts[name]) / counts.total()))
        if name not in found.scores and (counts[name] < min_frequency or score <= sum(scores[one] for one in pieces)):
            continue
        kept.pieces[name], kept.scores[name] = pieces, score
    return kept
