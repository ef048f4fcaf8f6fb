"""Label each row with its topic, and keep or drop rows by it.

Usage: in a manifest, `blocks: [{topic: {clusters: 20}}]`, or with
`{topic: {topics: {law: [court statute], food: [bread oven]}, keep: [law]}}`.

Topics are found in the rows themselves, named by their words, or given by words and examples. The label is the row's
`topic`, by which a mixture may weigh rows: the topics of Llama-3-SynE (Chen et al. 2024, arXiv 2407.18743) and of the
Data Mixing Agent (2507.15640), whose classifiers are trained models; this one is `common.data.topics`.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import Field, model_validator

from common.config.blocks import ALL, Block, BlockContext, BlockSettings, Drop, Row, Task
from common.config.names import NonEmpty
from common.data.texts import texts_of
from common.data.topics import FILE, MOST_CHARACTERS, OTHER, TopicModel, fit_clusters, fit_seeds
from common.errors import ConfigError
from common.store.artifacts import write_json


class TopicSettings(BlockSettings):
    """Where topics come from, and which rows stay."""

    clusters: int | None = Field(None, ge=2, le=1000, description="number of topics to find in the rows")
    topics: dict[NonEmpty, tuple[NonEmpty, ...]] = Field(
        default_factory=dict, description="topics by name, each with texts about it: words, or whole examples"
    )
    least: float = Field(0.02, ge=0, le=1, description="nearness to a given topic below which a row is `other`")
    keep: tuple[NonEmpty, ...] = Field((), description="topics whose rows stay; none: all")
    drop: tuple[NonEmpty, ...] = Field((), description="topics whose rows go")
    sample: int = Field(20_000, ge=100, le=1_000_000, description="rows, drawn by their hash, that topics are made of")

    @model_validator(mode="after")
    def _fits(self) -> TopicSettings:
        if (self.clusters is None) == (not self.topics):
            raise ValueError("set either clusters, the number of topics to find, or topics, with texts for each")
        if len(self.topics) == 1 or not all(self.topics.values()):
            raise ValueError("topics needs two or more, each with at least one text")
        if self.topics and (wrong := sorted({*self.keep, *self.drop} - {*self.topics, OTHER})):
            raise ValueError(f"keep or drop names {', '.join(wrong)}, which is not among topics")
        return self


class Topics:
    """Draws a sample of all rows, makes topics of it, and labels the rows; see `common.config.blocks.TwoPass`."""

    def __init__(self, settings: TopicSettings, context: BlockContext) -> None:
        self._settings, self._folder, self._seed = settings, context.folder, context.seed

    def look(self, task: Task, rows: Iterator[Row]) -> Iterator[Row]:
        """Yield the rows, and write those of the lowest hashes: the same sample, however rows are cut into tasks."""
        lowest: list[tuple[int, str]] = []  # negative hashes: a heap gives away its least
        for row in rows:
            text = _text(row)
            entry = (-int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:8], "big"), text)
            if len(lowest) < self._settings.sample:
                heapq.heappush(lowest, entry)
            else:
                heapq.heappushpop(lowest, entry)
            yield row
        write_json(self._path(task.number), sorted((-number, text) for number, text in lowest))

    def decide(self, tasks: int) -> None:
        """Make the topics. Raises ConfigError where `keep` or `drop` names a cluster that is not there."""
        parts = [json.loads(self._path(number).read_text(encoding="utf-8")) for number in range(tasks)]
        merged = sorted({(number, text) for part in parts for number, text in part})[: self._settings.sample]
        sample = [text for _, text in merged if text.strip()]
        if self._settings.topics:
            model = fit_seeds(sample, self._settings.topics, self._settings.least)
        elif sample:
            model = fit_clusters(sample, int(self._settings.clusters or 0), self._seed)
        else:
            return
        self._check(model)
        model.save(self._folder)

    def _check(self, model: TopicModel) -> None:
        if wrong := sorted({*self._settings.keep, *self._settings.drop} - {*model.names, OTHER}):
            raise ConfigError(
                f"topic: keep or drop names {', '.join(wrong)}, which was not found in the rows. "
                f"Topics are {', '.join(sorted(model.names))}."
            )

    def judge(self, task: Task) -> Callable[[int, Row], Row | Drop]:
        """Return what labels a row, or drops it for its topic."""
        model = TopicModel.load(self._folder) if (self._folder / FILE).is_file() else None
        keep, drop = frozenset(self._settings.keep), frozenset(self._settings.drop)

        def judge(place: int, row: Row) -> Row | Drop:
            name, nearness = model.label(_text(row)) if model is not None else (OTHER, 0.0)
            if name in drop or (keep and name not in keep):
                return Drop("topic", f"{name}, nearness {nearness:.2f}")
            return row | {"topic": name}

        return judge

    def _path(self, number: int) -> Path:
        return self._folder / f"sample-{number:05d}.json"


def _text(row: Row) -> str:
    return "\n".join(texts_of(row))[:MOST_CHARACTERS]


def look(settings: TopicSettings, context: BlockContext) -> Topics:
    """Return what labels all rows."""
    return Topics(settings, context)


BLOCK = Block(
    name="topic", settings=TopicSettings, look=look, rows=ALL, seeded=True, phrase="rows of topics that are not wanted",
)  # fmt: skip
