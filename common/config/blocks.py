"""What is known of each block that cleans rows: one object for each, declared in the block's own module.

Usage: `block_of("pii").settings`; `choices = checked([{"pii": {"kinds": ["mail"]}}, "unicode"])`.

A new block is one module in `common/data/blocks/`, named after it, with `BLOCK = Block(...)`. The registry lists that
package when it is first asked, so this room names no block. Nothing heavy is imported with them. How a list of blocks
is run over the rows of a role is `common.data.cleaning`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol

from pydantic import BeforeValidator, Field

from common.config.base import Frozen, Share
from common.config.defaults import differing
from common.config.names import NonEmpty
from common.config.registry import declared
from common.config.validation import validated
from common.errors import ConfigError, did_you_mean

BLOCKS = "common.data.blocks"
TEXT, ALL = ("text",), ("text", "messages", "prompt")  # kinds of rows, by a key that each of them has
Row = dict[str, Any]


@dataclass(frozen=True)
class Drop:
    """Why a block leaves a row out: the reason that is counted, and what was found in this one."""

    reason: str  # few of them: rows are counted by it
    detail: str = ""  # for the sample of rejected rows: a number, the other row


RowFunction = Callable[[Row], Row | Drop]


class Task(NamedTuple):
    """One of the equal shares that the rows of a role are cut into. Their number follows from the data alone."""

    number: int
    of: int  # 0 where a block looks while others are still read, which those do not that read earlier stages' rows


class TwoPass(Protocol):
    """A block that must see all rows before it decides on any: it finds duplicates, or the lowest quarter.

    All three run in any process, so that they share nothing but files below `BlockContext.folder`. Each writes its own
    files there, named by the task's number and renamed into place when they are whole: a task that was killed begins
    again.
    """

    def look(self, task: Task, rows: Iterator[Row]) -> Iterator[Row]:
        """Yield the rows of a task as they come, and note what the decision needs."""

    def decide(self, tasks: int) -> None:
        """Decide, once all tasks have looked."""

    def judge(self, task: Task) -> Callable[[int, Row], Row | Drop]:
        """Return what judges the task's rows: by the place of a row among those that `look` was given, and the row."""


@dataclass(frozen=True)
class BlockContext:
    """What a block may use besides its settings. It crosses to other processes."""

    folder: Path  # of the block's own files, while the stage is being made
    role: str
    earlier: Mapping[str, Path] = field(default_factory=dict)  # role -> folder with the rows that it was made of
    scorers: Mapping[str, Callable[..., float]] = field(default_factory=dict)  # functions of the domain's blocks.py
    data: Path | None = None  # the data folder, for blocks that read files of the user's
    seed: int = 0
    workers: int = 1


class BlockSettings(Frozen):
    """What every block has in common."""

    sources: tuple[NonEmpty, ...] = Field((), description="ids of the sources that it cleans; none: all of them")
    most: Share = Field(1.0, description="largest share of the rows it sees that it may drop before the run stops")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block: what every other part of the program asks about it. It has `start` or `look`, and not both."""

    name: str  # as a manifest says it; its module is called the same
    settings: type[BlockSettings]
    phrase: str  # what it does, for people: "rows in another language than asked for"
    start: Callable[[Any, BlockContext], RowFunction] | None = None  # judges or changes each row by itself
    look: Callable[[Any, BlockContext], TwoPass] | None = None
    rows: Collection[str] = TEXT  # kinds of rows that it is for; it never sees others
    roles: Callable[[Any], Sequence[str]] = lambda settings: ()  # further roles whose cleaned rows it reads
    scorers: Callable[[Any], Sequence[str]] = lambda settings: ()  # functions of the domain that it calls
    scores: Callable[[Any], Sequence[str]] = lambda settings: ()  # names of scores that it leaves on rows
    line_scores: Callable[[Any], Sequence[str]] = lambda settings: ()  # the same, of each line of a text
    files: Callable[[Any], Sequence[str]] = lambda settings: ()  # files below the data folder that it reads: part of it
    checkpoints: Callable[[Any], Sequence[str]] = lambda settings: ()  # folders of models that it reads: part of it too
    seeded: bool = False  # whether the run's seed decides what it does
    paper: str = ""  # where it is defined

    def __post_init__(self) -> None:
        assert (self.start is None) != (self.look is None), f"{self.name}: it has one of start and look"


def block_of(name: str) -> Block:
    """Return a block by its name. Raises KeyError for one that does not exist."""
    return blocks()[name]


def blocks() -> Mapping[str, Block]:
    """Return all blocks by name."""
    return declared(BLOCKS, "BLOCK")


def checked(given: Any) -> tuple[dict[str, dict[str, Any]], ...]:
    """Return a list of blocks in one form: each a name with the settings that are not its defaults.

    An item is a name, or a name with settings below it. Raises ValueError for what is neither, and for each setting
    that a block refuses.
    """
    if not isinstance(given, list | tuple):
        raise ValueError(f"expected a list of blocks, got {given!r}")
    found, problems = [], []
    for number, item in enumerate(given, start=1):
        item = {item: {}} if isinstance(item, str) else item
        if not isinstance(item, Mapping) or len(item) != 1:
            problems.append(
                f"item {number}: expected the name of a block, or a name with its settings below; got {item!r}"
            )
            continue
        ((name, values),) = item.items()
        if name not in blocks():
            problems.append(f"item {number}: no block '{name}'.{did_you_mean(str(name), blocks())}")
            continue
        try:
            settings = validated(block_of(name).settings, {} if values is None else values, prefix=name)
        except ConfigError as error:
            problems.append(f"item {number}: {error}")
            continue
        found.append({name: differing(settings)})
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(found)


BlockList = Annotated[tuple[dict[str, dict[str, Any]], ...], BeforeValidator(checked)]


def chosen(listed: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[tuple[str, BlockSettings]]:
    """Return the blocks of a checked list, each by name with its settings."""
    return [(name, block_of(name).settings.model_validate(values)) for item in listed for name, values in item.items()]
