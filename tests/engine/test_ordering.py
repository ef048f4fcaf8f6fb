"""The order of domains: as given, by the nearest text, or by the seed; and the distance it goes by."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from pathlib import Path
from typing import Any, cast

import pytest

from common.config.resolve import Resolved
from common.data.corpus import Corpus, Portion
from common.engine import corpora, ordering
from common.engine.ordering import jensen_shannon, nearest_chain, resolve_run, shuffled, word_frequencies
from common.errors import ConfigError, DataError
from tests.conftest import REPOSITORY


def divergence(a: dict[str, int], b: dict[str, int]) -> float:
    """The definition, word by word."""
    p = {word: a.get(word, 0) / sum(a.values()) for word in {*a, *b}}
    q = {word: b.get(word, 0) / sum(b.values()) for word in {*a, *b}}
    m = {word: (p[word] + q[word]) / 2 for word in p}
    return sum(sum(x[w] * log2(x[w] / m[w]) for w in x if x[w]) for x in (p, q)) / 2


def test_the_distance_is_the_divergence_in_bits() -> None:
    a, b = {"cell": 3, "the": 5, "drug": 2}, {"court": 4, "the": 6}
    assert jensen_shannon(a, b) == pytest.approx(divergence(a, b))
    assert jensen_shannon(a, b) == pytest.approx(jensen_shannon(b, a))
    assert jensen_shannon(a, {word: 7 * number for word, number in a.items()}) == pytest.approx(0)
    assert jensen_shannon({"x": 1}, {"y": 9}) == pytest.approx(1)


def test_a_chain_goes_on_with_the_nearest_that_is_left() -> None:
    texts = {"a": {"x": 9, "y": 1}, "b": {"z": 9, "y": 1}, "c": {"x": 5, "y": 5}, "d": {"y": 8, "z": 2}}
    names, note = nearest_chain(texts)
    assert names == ["a", "c", "d", "b"]
    assert note.startswith("Order: a, then the nearest by word frequencies: c 0.")


def test_texts_that_were_compared_are_not_opened_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened: list[Resolved] = []
    real = corpora.open_corpus

    def opening(resolved: Resolved) -> Corpus:
        opened.append(resolved)
        return real(resolved)

    monkeypatch.setattr(ordering, "word_frequencies", lambda corpus, name: {name: 1})
    monkeypatch.setattr(corpora, "open_corpus", opening)
    run = resolve_run({"domains": "medical,legal", "order": "similar", "out": str(tmp_path)}, REPOSITORY)
    assert len(opened) == 2
    assert all(member.opened is not None for member in run.members.values())


def test_a_random_order_follows_from_the_seed_and_not_from_how_it_was_typed() -> None:
    orders = {seed: shuffled(["law", "money", "health", "code"], seed)[0] for seed in range(6)}
    assert orders[0] == shuffled(["code", "health", "money", "law"], 0)[0]
    assert len({tuple(order) for order in orders.values()}) > 1


class Words:
    """A corpus of some texts, or of texts on the Hub."""

    def __init__(self, *texts: str, far: bool = False) -> None:
        self.texts, self.far, self.asked = texts, far, 0

    def identity(self, roles: Sequence[str]) -> list[dict[str, Any]]:
        return [{"texts": self.texts, "far": self.far}]

    def portions(self, role: str) -> list[Portion] | None:
        self.asked += 1
        rows = iter([{"text": text, "source": "x"} for text in self.texts])
        return None if self.far else [Portion("x", rows, 1.0, lambda: 1.0)]


def test_words_are_counted_once_whatever_their_case() -> None:
    corpus = Words("The law.", "the LAW, the court")
    for _ in range(2):
        assert word_frequencies(cast(Corpus, corpus), "x") == {"court": 1, "law": 2, "the": 3}
    assert corpus.asked == 1, "the second time they are known"
    with pytest.raises(DataError, match="x has none"):
        word_frequencies(cast(Corpus, Words()), "x")
    with pytest.raises(DataError, match="those of x are on the Hub"):
        word_frequencies(cast(Corpus, Words(far=True)), "x")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"domains": "medical,legal", "order": "nearest"}, "order=nearest: expected given, similar or random"),
        ({"domain": "medical", "order": "similar"}, "order=similar needs several domains"),
    ],
)
def test_a_wrong_order_is_refused(words: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        resolve_run(words, REPOSITORY)


def test_an_order_is_part_of_the_runs_name_and_said_in_its_plan(tmp_path: Path) -> None:
    words = {"domains": "medical,legal,finance", "order": "random", "seed": "3", "out": str(tmp_path)}
    run = resolve_run(words, REPOSITORY)
    names = shuffled(["medical", "legal", "finance"], 3)[0]
    assert list(run.members) == names
    assert run.config.domain == "_".join(names)
    assert "drawn at random with seed 3" in run.order
    assert resolve_run({**words, "domains": "finance,medical,legal"}, REPOSITORY).config == run.config
