"""What is known of each method of the papers: one object for each, declared in the method's own module.

Usage: `method_of("reptile").settings`; `for method, own in chosen(settings): ...`.

A new method is one module in the folder of its place below `common/training/methods/`, named after it, with `METHOD`:
the formula as a function, its paper, its settings. The registry lists these packages when it is first asked, so this
room names no method. Nothing heavy is imported with them. How a trainer uses them is `common.training.methods.applied`;
what is checked when layers are merged is `common.config.method_rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import BeforeValidator, ValidationError
from pydantic_core import PydanticCustomError

from common.config.base import Frozen, StageSettings
from common.config.defaults import differing
from common.config.mixture import CurriculumSettings
from common.config.numbers import UNSOUND
from common.config.registry import declared
from common.config.validation import explain
from common.errors import did_you_mean

if TYPE_CHECKING:
    import numpy as np

    from common.config.node import Node

Place = Literal["schedule", "optimizer", "loss", "rows"]
FOLDERS: Mapping[Place, str] = {
    "schedule": "common.training.methods.schedules", "optimizer": "common.training.methods.optimizers",
    "loss": "common.training.methods.losses", "rows": "common.training.methods.rows",
}  # fmt: skip
Measured = Mapping[str, Any]  # name -> number, or a tensor of one number


class MethodSettings(Frozen):
    """Base of the settings of a method. Each field has a default, so that `{name: {}}` is enough."""


@dataclass(frozen=True)
class Ancestor:
    """A stage that another one continues from, as the settings of a run describe it."""

    node: Node
    settings: StageSettings
    taken: bool  # a finished checkpoint is taken there, and nothing is trained


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method: what every other part of the program asks about it. One of the classes below says its place."""

    name: str  # as settings say it; its module is called the same
    settings: type[MethodSettings]
    phrase: str  # what it does, for people: "interpolation with the weights of some steps before"
    paper: str  # where it is defined: "arXiv 2508.01908, section 3"
    ours: str = ""  # which of its defaults are ours, and not the paper's

    place: ClassVar[Place]
    # Completes settings by those of the stages before it, the nearest first. Raises ValueError for what cannot be.
    complete: Callable[[Any, Sequence[Ancestor]], MethodSettings] | None = None
    # (its settings, those of the stage) -> what does not go together, or nothing.
    problem: Callable[[Any, Any], str] = lambda own, stage: ""
    # (all steps, its settings, those of the stage) -> what does not go with so many steps, or nothing.
    misfit: Callable[[int, Any, Any], str] = lambda steps, own, stage: ""
    excludes: Collection[str] = ()  # methods that it cannot be together with
    # Bytes that it holds beside each weight that learns, where it computes.
    bytes_per_weight: Callable[[Any], float] = lambda own: 0.0
    scores: Callable[[Any], Collection[str]] = lambda own: ()  # that blocks must leave on the stage's own rows
    line_scores: Callable[[Any], Collection[str]] = lambda own: ()  # the same, of each line
    new_tokens: Callable[[Any], Sequence[str]] = lambda own: ()  # control tokens that the chain's tokenizer gets
    charted: Sequence[str] = ()  # of the numbers that it logs, those whose course the card shows
    # (the trained model, its tokenizer, settings): changes what is saved beside its weights.
    finish: Callable[[Any, Any, Any], None] | None = None


@dataclass(frozen=True, kw_only=True)
class ScheduleMethod(Method):
    """A learning-rate schedule. A stage has one, in place of its `schedule`."""

    place: ClassVar[Place] = "schedule"

    # (step from 0, all steps, settings) -> the rate of that step, as a share of the peak.
    multiplier: Callable[[int, int, Any], float]
    peak: Callable[[Any], float] | None = None  # in place of train.learning_rate


@dataclass(frozen=True)
class Step:
    """An optimizer step: the model that learns, as it is in this process, whole or its shards."""

    model: Any
    optimizer: Any
    number: int  # from 1
    of: int
    probe: Sequence[tuple[Any, Any]] = ()  # batches of ids and labels of replay text, where the method asks for some

    def weights(self) -> dict[str, Any]:
        """Return the weights that learn, by name. Of a sharded model they are DTensors."""
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}


@dataclass(frozen=True, kw_only=True)
class OptimizerMethod(Method):
    """What an optimizer does beyond its own rule: rates of groups of weights, or something around its steps.

    `state` is a dict of tensors. It is saved in trainer checkpoints and comes back when a training resumes. Under DDP
    every process has the same; of a sharded model its tensors are DTensors, or equal in all processes.
    """

    place: ClassVar[Place] = "optimizer"

    # (model, settings) -> name of a weight -> its share of the stage's learning rate; weights without one have all.
    rates: Callable[[Any, Any], Mapping[str, float]] | None = None
    # (the trainer's AdamW before its first step, model, settings, all steps) -> the optimizer in its place.
    optimizer: Callable[[Any, Any, Any, int], Any] | None = None
    apart: bool = False  # each weight has a group of its own, whose rate `before_step` may change for that step
    shards: bool = True  # works on a sharded model
    probe_tokens: Callable[[Any], int] = lambda own: 0  # of replay text that it measures on: see `Step.probe`
    probe_every: Callable[[Any], int] = lambda own: 1  # steps between two measurements, forward and back
    begin: Callable[[Step, Any], dict[str, Any]] = lambda step, own: {}  # the state before the first step
    before_step: Callable[[Step, Any, dict[str, Any]], Measured | None] | None = None  # gradients are there, clipped
    after_step: Callable[[Step, Any, dict[str, Any]], Measured | None] | None = None


class KeptLogits(NamedTuple):
    """The teacher's K largest logits at each position, as log-probabilities, and what is left for all others."""

    ids_BTK: Any  # int64
    log_probs_BTK: Any  # float32
    rest_BT: Any  # float32: log of the sum of all other probabilities


@dataclass(frozen=True)
class LossBatch:
    """What a micro batch offers to a loss. Shapes: B rows, T tokens, V vocabulary.

    `next_BT` is the token that each position should predict, -100 where nothing is learned.
    """

    logits_BTV: Any
    next_BT: Any
    teacher_BTV: Any | None  # logits of the teacher that runs beside, without a gradient
    outputs: Any = None  # of the model, whatever `forward` asked for
    scores: Mapping[str, Any] = field(default_factory=dict)  # name -> (B, T) float32 of each token's document, or NaN
    head: Any = None  # the module of the method itself, where it has one
    model: Any = None  # bare, with what its layers keep of the forward pass
    kept: KeptLogits | None = None  # of a teacher that has read the rows before


@dataclass(frozen=True, kw_only=True)
class LossMethod(Method):
    """A term beside the loss of the next token, or one that takes its place.

    `term` returns a sum over the positions that are learned, and sums to log. Both are divided by the number of such
    positions in the whole step, over all micro batches and processes.
    """

    place: ClassVar[Place] = "loss"

    term: Callable[[LossBatch, Any], tuple[Any, Measured]]
    replaces: bool = False  # the loss of the next token is left out
    next_token: Callable[[Any], float] = lambda own: 1.0  # weight of the loss of the next token beside it
    teacher: bool = False  # the stage before it teaches: it runs beside, frozen, unless `keeps` says otherwise
    # How many of its logits at each position are enough, so that it reads each row once, before the first step; 0: all.
    keeps: Callable[[Any], int] = lambda own: 0
    # (its logits, the true next tokens) -> those of which the largest are kept, where these are not its own.
    as_kept: Callable[[Any, Any], Any] | None = None
    # (size of a hidden state, settings) -> a module that learns with the model, and is not part of the result.
    head: Callable[[int, Any], Any] | None = None
    forward: Mapping[str, Any] = field(default_factory=dict)  # further arguments of the forward pass


@dataclass(frozen=True)
class PackedRows:
    """Packed rows of one length, in the order in which they would be read."""

    order: np.ndarray  # (all rows of the training,) int64: places among the rows
    own: np.ndarray  # places of the stage's own rows that may train
    rows: Any  # a memory-mapped data set, by place: input_ids, labels, seq_lengths, and a column score/<name> of each
    rows_per_step: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class RowsMethod(Method):
    """What changes rows of the stage's own before they are packed, which packed rows are read, in which order and how.

    The number of packed rows that are read stays.
    """

    place: ClassVar[Place] = "rows"

    # (row, settings, seed) -> the row, changed; `changed` in it says how, and is counted. Equal rows change alike.
    # ValueError: it cannot be.
    rewrite: Callable[[dict[str, Any], Any, int], dict[str, Any]] | None = None
    # (conversation, which of its tokens are learned, settings) -> which are, and what that is called where rows are
    # counted; None where it stays as it is.
    mark: Callable[[Mapping[str, Any], Sequence[bool], Any], tuple[list[bool], str] | None] | None = None
    # (step from 0, all steps, settings) -> into how many rows of equal length each packed row is cut in that step.
    parts: Callable[[int, int, Any], int] | None = None
    # (what rewriting said -> rows, packed rows, settings) -> what is worth knowing. ValueError: it must not train.
    judge: Callable[[Mapping[str, int], PackedRows, Any], Measured] | None = None
    sorted_by: Callable[[Any], CurriculumSettings | None] = lambda own: None  # order in which own rows are packed
    # The new order, and what is worth knowing of it.
    order: Callable[[PackedRows, Any], tuple[Any, Measured]] | None = None


def methods() -> dict[str, Method]:
    """Return all methods by name, those of one place together."""
    found: dict[str, Method] = {}
    for place, folder in FOLDERS.items():
        for name, method in declared(folder, "METHOD").items():
            assert method.place == place, f"{name} is a method of the place {method.place}, not {place}"
            assert name not in found, f"two methods are called {name}"
            found[name] = method
    return found


def method_of(name: str) -> Method:
    """Return a method by its name. Raises KeyError for one that does not exist."""
    return methods()[name]


def checked(given: Any) -> dict[str, dict[str, Any]]:
    """Return methods in one form: each by name, with the settings that are not its defaults.

    Taken are a name, a list of names, and names with their settings below; nothing or `true` below one means its
    defaults, and `false` that it is off. Raises an error of pydantic's that names the key.
    """
    if isinstance(given, str):
        given = [given]
    if isinstance(given, list | tuple) and all(isinstance(name, str) for name in given):
        given = dict.fromkeys(given)
    if not isinstance(given, Mapping):
        raise ValueError("expected names of methods with their settings below, such as {reptile: {every: 500}}")
    found = {}
    for name, values in given.items():
        if name not in methods():
            raise _wrong(str(name), f"there is no such method.{did_you_mean(str(name), methods())}")
        if values is False:
            continue
        values = {} if values is None or values is True else values
        if not isinstance(values, Mapping):
            raise _wrong(name, f"expected settings below it, or true or false; got {values!r}")
        cls = method_of(name).settings
        try:
            found[name] = differing(cls.model_validate(values))
        except ValidationError as error:
            key, _, message = explain(error, cls, values, prefix=name)[0].partition(": ")
            raise _wrong(key, message) from None
    return found


def _wrong(key: str, message: str) -> PydanticCustomError:
    return PydanticCustomError(UNSOUND, message.removesuffix("."), {"key": key})


Methods = Annotated[dict[str, dict[str, Any]], BeforeValidator(checked)]


def chosen(settings: StageSettings) -> list[tuple[Method, MethodSettings]]:
    """Return the methods of a stage with their settings, in the order of their places; none where it has none."""
    given: Mapping[str, Any] = getattr(settings, "methods", {})
    if not given:  # then no method is imported
        return []
    on = [method for name, method in methods().items() if name in given]
    return [(method, method.settings.model_validate(given[method.name])) for method in on]


def beside(settings: StageSettings) -> str:
    """Return a method for which the stage before runs beside a stage while it trains, or nothing."""
    losses = ((method, own) for method, own in chosen(settings) if isinstance(method, LossMethod))
    return next((method.name for method, own in losses if method.teacher and not method.keeps(own)), "")


def teaches(settings: StageSettings) -> bool:
    """Whether the stage before runs beside a stage while it trains."""
    return bool(beside(settings))


def keeps(settings: StageSettings) -> int:
    """Return how many logits of the stage before are kept at each position before a stage trains; 0: none."""
    return max((method.keeps(own) for method, own in chosen(settings) if isinstance(method, LossMethod)), default=0)


def described(method: Method, own: MethodSettings) -> dict[str, Any]:
    """Return what results, plans and cards say of a method that is on."""
    return {
        "place": method.place, "phrase": method.phrase, "paper": method.paper,
        **({"ours": method.ours} if method.ours else {}), "settings": own.model_dump(mode="json"),
    }  # fmt: skip
