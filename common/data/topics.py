"""What texts are about: topics found by clustering a sample of them, or given by words and examples.

Usage: `model = fit_clusters(texts, 20, seed=0)`; `model = fit_seeds(texts, {"law": ["court statute"]})`;
`name, nearness = model.label("The court ruled")`; `model.save(folder)`; `TopicModel.load(folder)`.

Texts are TF-IDF vectors over the words of `common.data.words`, in any script. Clusters are MiniBatchKMeans (Sculley
2010); a topic that is given is the mean of its texts, and a text belongs to the nearest one (Rocchio 1971). It is a
cheap measure: it knows words, not what they mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from common.data.shards import replacing
from common.data.words import words_of

MOST_WORDS = 50_000  # in the vocabulary, the most frequent ones
MOST_CHARACTERS = 20_000  # of a text, the first ones
NAMED_BY = 3  # words in the name of a cluster
OTHER = "other"  # of a text that is near no topic
FILE = "topics.npz"


@dataclass(frozen=True)
class TopicModel:
    """The words that are known, how rare each is, and a vector of length 1 for each topic."""

    names: tuple[str, ...]
    words: tuple[str, ...]
    rarity: Any  # (words,) float64
    centres: Any  # (topics, words) float64
    least: float = 0.0  # nearness below which a text is of no topic

    def label(self, text: str) -> tuple[str, float]:
        """Return the topic that a text is nearest to, and the cosine between them; OTHER below `least`."""
        vector = self.vectors([text])
        near = (vector @ self.centres.T)[0]
        best = int(near.argmax())  # the first of equal ones
        found = float(near[best])
        return (self.names[best] if found >= self.least and found > 0 else OTHER), found

    def vectors(self, texts: Sequence[str]) -> Any:
        """Return texts as sparse rows of length 1."""
        import numpy as np
        from scipy.sparse import diags
        from sklearn.preprocessing import normalize

        counts = self._counter.transform([text[:MOST_CHARACTERS] for text in texts]).astype("float64")
        counts.data = 1 + np.log(counts.data)
        return normalize(counts @ diags(self.rarity))

    @cached_property
    def _counter(self) -> Any:
        from sklearn.feature_extraction.text import CountVectorizer

        return CountVectorizer(analyzer=words_of, vocabulary={word: place for place, word in enumerate(self.words)})

    def save(self, folder: Path) -> None:
        """Write it into a folder, whole or not at all."""
        import numpy as np

        about = json.dumps({"names": self.names, "words": self.words, "least": self.least})
        told = np.frombuffer(about.encode(), dtype=np.uint8)
        with replacing(folder / FILE) as fresh, fresh.open("wb") as file:
            np.savez(file, rarity=self.rarity, centres=self.centres, about=told)

    @classmethod
    def load(cls, folder: Path) -> TopicModel:
        """Read it from a folder that `save` wrote."""
        import numpy as np

        with np.load(folder / FILE, allow_pickle=False) as found:
            about = json.loads(found["about"].tobytes())
            rarity, centres = found["rarity"], found["centres"]
        return cls(tuple(about["names"]), tuple(about["words"]), rarity, centres, about["least"])


def fit_clusters(texts: Sequence[str], number: int, seed: int) -> TopicModel:
    """Return as many topics as asked for, or as many as there are texts, named by the words that mark each most."""
    import numpy as np
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    base = _vocabulary(texts)
    vectors = base.vectors(texts)
    with threadpool_limits(1):  # sums in one order, so that any machine finds the same
        means = MiniBatchKMeans(min(number, len(texts)), random_state=seed, n_init=3, batch_size=1024).fit(vectors)
    centres = means.cluster_centers_
    contrast = centres - centres.mean(axis=0)
    names: list[str] = []
    for row in contrast:
        best = sorted(np.argsort(-row, kind="stable")[:NAMED_BY], key=lambda place: -row[place])
        name = "-".join(base.words[place] for place in best)
        names.append(name if name not in names else f"{name}-{len(names)}")
    return TopicModel(tuple(names), base.words, base.rarity, _unit(centres))


def fit_seeds(texts: Sequence[str], topics: Mapping[str, Sequence[str]], least: float = 0.0) -> TopicModel:
    """Return topics that are given, each by texts: words, or whole examples. How rare a word is `texts` say."""
    import numpy as np

    base = _vocabulary([*texts, *(text for given in topics.values() for text in given)])
    centres = np.vstack([np.asarray(base.vectors(given).mean(axis=0)) for given in topics.values()])
    return TopicModel(tuple(topics), base.words, base.rarity, _unit(centres), least)


def _vocabulary(texts: Sequence[str]) -> TopicModel:
    """Return a model that knows words and no topic yet."""
    import numpy as np
    from sklearn.feature_extraction.text import CountVectorizer

    # Words of nearly every text, such as articles, tell nothing; with few texts none is left out.
    counter = CountVectorizer(analyzer=words_of, max_features=MOST_WORDS, max_df=0.5 if len(texts) >= 50 else 1.0)
    counts = counter.fit_transform([text[:MOST_CHARACTERS] for text in texts])
    seen = np.bincount(counts.indices, minlength=counts.shape[1])
    rarity = np.log((1 + len(texts)) / (1 + seen)) + 1
    return TopicModel((), tuple(counter.get_feature_names_out().tolist()), rarity, np.zeros((0, len(rarity))))


def _unit(centres: Any) -> Any:
    import numpy as np

    return centres / np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
