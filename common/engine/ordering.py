"""The order in which a sequence of domains is trained: as given, similar ones next to each other, or at random.

Usage: `resolved = resolve_run({"domains": "medical,legal", "order": "similar"}, repository, results)`.

Similar: a chain that begins with the domain given first, and goes on with the nearest one that is left. How far two
domains are apart is the Jensen-Shannon divergence of the word frequencies of their text (Lin 1991), in bits: 0 for
equal ones, 1 for two that share no word. Yildiz et al. (arXiv 2402.17400) compare a similar with a random order; our
measure and chain are our own. Frequencies are counted once for the same data and kept in the cache.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from common.config.resolve import Resolved, resolve
from common.config.sequence import DOMAINS, ORDER, assemble, read_domains, resolve_members
from common.data.corpus import Corpus
from common.data.sizes import reader_code
from common.data.words import words_of
from common.engine.corpora import open_corpus, with_corpora
from common.errors import ConfigError, DataError, did_you_mean
from common.store import cache
from common.store.artifacts import fingerprint_of

ORDERS = ("given", "similar", "random")
ROLE = "cpt"  # whose text is compared
MOST_CHARACTERS = 20_000_000  # of each domain's text, from its beginning
SCHEMA = 1  # of what is cached


def resolve_run(overrides: Mapping[str, str], repository: Path, results: Path | None = None) -> Resolved:
    """Resolve a run of one domain, or of several in one chain. Raises ConfigError or DataError."""
    if DOMAINS not in overrides:
        if ORDER in overrides:
            raise ConfigError(f"{ORDER}={overrides[ORDER]} needs several domains: domains=<name>,<name>.")
        return resolve(overrides, repository, results)
    order = overrides.get(ORDER, ORDERS[0])
    if order not in ORDERS:
        raise ConfigError(
            f"order={order}: expected {', '.join(ORDERS[:-1])} or {ORDERS[-1]}.{did_you_mean(order, ORDERS)}"
        )
    domains = read_domains(overrides, repository)
    members = resolve_members(domains, overrides, repository, results)
    if order == "given":
        return assemble(members)
    given = dict(zip(members, domains, strict=True))
    if order == "random":
        names, note = shuffled(list(members), next(iter(members.values())).config.seed)
    else:
        members = {name: with_corpora(member) for name, member in members.items()}
        names, note = nearest_chain({name: word_frequencies(open_corpus(one), name) for name, one in members.items()})
    ordered = resolve_members([given[name] for name in names], overrides, repository, results)
    return assemble({name: replace(one, opened=members[name].opened) for name, one in ordered.items()}, note)


def shuffled(domains: Sequence[str], seed: int) -> tuple[list[str], str]:
    """Return the domains in an order that follows from the seed and their names alone, and why in words."""
    names = sorted(domains)
    random.Random(seed).shuffle(names)
    return names, f"Order: {', '.join(names)}; drawn at random with seed {seed}."


def nearest_chain(frequencies: Mapping[str, Mapping[str, int]]) -> tuple[list[str], str]:
    """Return the domains so that each is followed by the nearest that is left, and the distances in words.

    It begins with the first one. Of two that are equally near, the one given first comes first.
    """
    first, *left = frequencies
    chain, steps = [first], []
    while left:
        distances = {name: jensen_shannon(frequencies[chain[-1]], frequencies[name]) for name in left}
        nearest = min(left, key=distances.__getitem__)
        steps.append(f"{nearest} {distances[nearest]:.3f}")
        chain.append(nearest)
        left.remove(nearest)
    return (
        chain,
        f"Order: {first}, then the nearest by word frequencies: {', '.join(steps)} (Jensen-Shannon divergence).",
    )


def jensen_shannon(a: Mapping[str, int], b: Mapping[str, int]) -> float:
    """Return the Jensen-Shannon divergence of two word frequencies, in bits.

    JSD(p, q) = (KL(p ‖ m) + KL(q ‖ m)) / 2 with m = (p + q) / 2. Lin (1991), "Divergence measures based on the Shannon
    entropy", eq. 4.1 with equal weights. scipy gives its square root, the distance.
    """
    import numpy as np
    from scipy.spatial.distance import jensenshannon

    words = sorted({*a, *b})
    p, q = (np.array([counts.get(word, 0) for word in words], dtype=np.float64) for counts in (a, b))
    return float(jensenshannon(p, q, base=2)) ** 2


def word_frequencies(corpus: Corpus, domain: str) -> dict[str, int]:
    """Return how often each word occurs in a domain's text, in small letters; of much text, in its beginning.

    Raises DataError where its text is on the Hub, or there is none.
    """
    facts = [SCHEMA, reader_code(), MOST_CHARACTERS, corpus.identity([ROLE])]
    name = f"words/{fingerprint_of({'facts': facts})}"
    with contextlib.suppress(TypeError, ValueError):
        if known := {str(word): int(number) for word, number in cache.read(name).items()}:
            return known
    portions = corpus.portions(ROLE)
    if portions is None:
        raise DataError(
            f"order=similar compares the domains' texts, and those of {domain} are on the Hub. Use order=given, or "
            "data=embedded."
        )
    counts: Counter[str] = Counter()
    read = 0
    for row in itertools.chain.from_iterable(portion.rows for portion in portions):
        counts.update(words_of(row["text"]))
        if (read := read + len(row["text"])) >= MOST_CHARACTERS:
            break
    if not counts:
        raise DataError(f"order=similar compares the domains' texts, and {domain} has none. Use order=given.")
    found = dict(sorted(counts.items()))
    cache.write(name, found)
    return found
