"""Which methods go together, and what a method takes from the stages before it: applied when layers are merged.

Usage: `stages = settle_methods(nodes, stages, labels, origins, taken=False)`, from `common.config.build`.

A method of the place `schedule` stands where a stage's `schedule` would, and takes the place of one that lower layers
say. What methods are is `common.config.methods`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from common.config.base import Schedule, StageSettings
from common.config.continued import continue_problem, continues
from common.config.defaults import differing
from common.config.growth import growth_among
from common.config.kinds import kind_of
from common.config.methods import Ancestor, LossMethod, Method, RowsMethod, ScheduleMethod, beside, chosen
from common.config.node import Node
from common.config.pruning import DECAYING
from common.config.stages import WithMethods
from common.errors import ConfigError

OF_A_SCHEDULE = ("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "warmup_ratio")
DEFAULT_OPTIMIZER = "adamw_torch_fused"  # of transformers
# Optimizers whose state is tensors of the weights' shapes and numbers of steps. Those of 8 bits and Adafactor, for
# example, keep blocks and factors, which have no place by the name of a weight alone.
CARRIED = ("adamw_torch", "adamw_torch_fused", "adagrad", "rmsprop", "sgd")
OTHER_LOSSES = {"loss_type": "nll", "label_smoothing_factor": 0.0, "use_liger_kernel": False}  # and what is usual


def settle_methods(
    nodes: Sequence[Node], stages: Mapping[str, StageSettings], labels: Sequence[str], origins: dict[str, str], *,
    taken: bool,
) -> dict[str, StageSettings]:  # fmt: skip
    """Return the stages with their methods completed. Raises ConfigError for methods that do not go together.

    `labels` are those of the layers, the lowest first; `origins` says which layer set a key, and learns what is
    completed here. With `taken` the chain starts from a finished checkpoint, which no method trains.
    """
    found = dict(stages)
    problems: list[str] = []
    for node in nodes:
        settings = found[node.name]
        if not isinstance(settings, WithMethods):
            continue
        before = [*_before(node, nodes, found, taken)]
        try:
            found[node.name] = settings = _with_brought(node, settings, before, origins)
        except ConfigError as error:
            problems.append(str(error))
            continue
        if settings.optimizer == "carry" and (problem := _carry_problem(node, settings, before)):
            problems.append(f"{node.name}.optimizer=carry: {problem}")
        if continues(settings) and (problem := continue_problem(node, settings, before)):
            problems.append(f"{node.name}.continue_data=true: {problem}")
        if not settings.methods:
            continue
        if kind_of(node.kind).starts and taken:
            found[node.name] = settings.model_copy(update={"methods": {}})  # as its precision: nothing is trained
            continue
        problem = next(_problems(node, settings, labels, origins), "")
        if problem:
            problems.append(problem)
            continue
        found[node.name] = _completed(node, settings, before, origins, problems)
    if problems:
        raise ConfigError("\n".join(problems))
    return found


def _with_brought(
    node: Node, settings: WithMethods, before: Sequence[Ancestor], origins: dict[str, str]
) -> WithMethods:  # fmt: skip
    """Return a stage's settings with the methods that a growth before it brings. Raises ConfigError for one put off."""
    growth = growth_among(one.settings for one in before)
    methods = dict(settings.methods)
    for name, own in growth.brings(node.kind).items() if growth is not None else ():
        if name not in methods and (label := origins.get(f"{node.name}.methods.{name}")):
            raise ConfigError(
                f"{node.name}.methods.{name} ({label}): the growth before the stage needs this method, so it cannot be "
                f"false. Set {node.name}.methods.{name}.scale=0, which leaves its term out of the loss."
            )
        said = methods.get(name, {})
        methods[name] = {**own, **said}
        for key in own.keys() - said.keys():
            origins[f"{node.name}.methods.{name}.{key}"] = "the stages before it"
    return settings.model_copy(update={"methods": methods}) if methods != settings.methods else settings


def _carry_problem(node: Node, settings: WithMethods, before: Sequence[Ancestor]) -> str:
    """Say why a stage cannot go on with the optimizer state of the stage before it, or nothing."""
    if not before:
        return f"{node.name} begins the chain. Leave it out."
    parent = before[0]
    name = parent.node.name
    if parent.taken or not isinstance(parent.settings, WithMethods):
        why = "takes a finished checkpoint" if parent.taken else f"is of kind {parent.node.kind}"
        return f"{name}, the stage before it, {why}, and leaves no state. Use optimizer=fresh."
    if (settings.peft, parent.settings.peft) != ("full", "full"):
        return f"state is carried between stages that train all weights, and peft is set in {name} or {node.name}."
    optimizers = [one.train.get("optim", DEFAULT_OPTIMIZER) for one in (parent.settings, settings)]
    if DECAYING in parent.settings.methods:
        return f"{name} trains with AdamS, whose state fits no other optimizer. Use optimizer=fresh."
    if optimizers[0] != optimizers[1]:
        return f"{name} trains with {optimizers[0]}, and {node.name} with {optimizers[1]}; set train.optim alike."
    if optimizers[0] not in CARRIED:
        return f"the state of {optimizers[0]} is not carried, only that of {', '.join(CARRIED)}. Use optimizer=fresh."
    if parent.settings.validation.keep == "best":
        return (
            f"{name} saves its best weights ({name}.validation.keep), and its optimizer's state is that of its last "
            f"ones. Use {name}.validation.keep=last, or optimizer=fresh."
        )
    return ""


def tokens_of_methods(stages: Mapping[str, StageSettings]) -> dict[str, str]:
    """Return the control tokens that methods write, each with the first stage that does."""
    found: dict[str, str] = {}
    for stage, settings in stages.items():
        for method, own in chosen(settings) if isinstance(settings, WithMethods) else ():
            found |= {token: stage for token in method.new_tokens(own) if token not in found}
    return found


def _problems(node: Node, settings: WithMethods, labels: Sequence[str], origins: Mapping[str, str]) -> Iterator[str]:
    """Yield what is wrong with the methods of a stage."""
    on = chosen(settings)

    def key(method: Method) -> str:
        return f"{node.name}.methods.{method.name}"

    schedules = [method for method, _ in on if isinstance(method, ScheduleMethod)]
    if len(schedules) > 1:
        names = " and ".join(method.name for method in schedules)
        yield f"{node.name}.methods: {names} are both learning-rate schedules; keep one (false switches one off)."
    for schedule in schedules:
        layer, said = (layer_of(place, labels, origins) for place in (key(schedule), f"{node.name}.schedule"))
        if said is not None and (layer is None or said[0] >= layer[0]):
            yield (
                f"{node.name}.schedule ({said[1]}) is set next to {key(schedule)}, which is a learning-rate schedule "
                "itself. Keep one of them."
            )
        rate = layer_of(f"{node.name}.train.learning_rate", labels, origins) if schedule.peak else None
        if rate is not None and (layer is None or rate[0] >= layer[0]):
            yield (
                f"{node.name}.train.learning_rate ({rate[1]}) is set next to {key(schedule)}, which sets the peak "
                "itself. Keep one of them."
            )
        if given := [name for name in OF_A_SCHEDULE if name in settings.train]:
            yield f"{node.name}.train.{given[0]} has no effect with {key(schedule)}, which is a schedule. Leave it out."
    for method, own in on:
        if other := next((other for other, _ in on if other.name in method.excludes), None):
            yield f"{node.name}.methods: {method.name} and {other.name} cannot be on together; keep one."
        if isinstance(method, LossMethod | RowsMethod) and settings.packing != "isolated":
            yield f"{key(method)} needs rows that are packed here; set {node.name}.packing=isolated."
        if isinstance(method, LossMethod):
            losses = [name for name, usual in OTHER_LOSSES.items() if settings.train.get(name, usual) != usual]
            if losses:
                option = f"{node.name}.train.{losses[0]}"
                yield f"{key(method)} goes with the plain loss of the next token. Leave {option} out."
            if method.teacher and kind_of(node.kind).starts:
                yield (
                    f"{key(method)} compares with the stage before, and {node.name} begins the chain. Set it for a "
                    "later stage."
                )
            if method.keeps(own) and (helped := beside(settings)):
                yield (
                    f"{key(method)}.top_k spares nothing next to {helped}, for which the stage before runs beside "
                    "anyway. Leave one of them out."
                )
            keeping = [other.name for other, its in on if isinstance(other, LossMethod) and other.keeps(its)]
            if method.name in keeping[1:]:
                yield (
                    f"{key(method)}.top_k next to that of {keeping[0]}: what the stage before leaves is for one of "
                    "them. Leave one out."
                )
        if problem := method.problem(own, settings):
            yield f"{key(method)}: {problem}."


def layer_of(prefix: str, labels: Sequence[str], origins: Mapping[str, str]) -> tuple[int, str] | None:
    """Return the number and the label of the highest layer that said something below a key, or of it."""
    above = prefix.rpartition(".")[0]
    said = [
        label for key, label in origins.items() if key == prefix or key.startswith(f"{prefix}.") or
        (key == above and above.endswith(".methods"))
    ]  # fmt: skip
    numbered = [(number, name) for label in said for number, name in enumerate(labels) if label.startswith(name)]
    return max(numbered, default=None)


def _before(node: Node, nodes: Sequence[Node], stages: Mapping[str, StageSettings], taken: bool) -> Iterator[Ancestor]:
    """Yield the stages that a stage continues from, the nearest first."""
    by_name = {one.name: one for one in nodes}
    while node.parent is not None:
        node = by_name[node.parent]
        yield Ancestor(node, stages[node.name], taken and kind_of(node.kind).starts)


def _completed(
    node: Node, settings: WithMethods, before: Sequence[Ancestor], origins: dict[str, str], problems: list[str]
) -> WithMethods:
    """Return a stage's settings with what its methods take from the stages before; a schedule method has no block."""
    methods = dict(settings.methods)
    for method, own in chosen(settings):
        if method.complete is None:
            continue
        try:
            complete = method.complete(own, before)
        except ValueError as error:
            problems.append(f"{node.name}.methods.{method.name}: {error}")
            continue
        methods[method.name] = differing(complete)
        for name in methods[method.name].keys() - settings.methods[method.name].keys():
            origins[f"{node.name}.methods.{method.name}.{name}"] = "the stages before it"
    settings = settings.model_copy(update={"methods": methods})
    schedule = next(((method, own) for method, own in chosen(settings) if isinstance(method, ScheduleMethod)), None)
    if schedule is None or problems:
        return settings
    for key in [key for key in origins if key.startswith(f"{node.name}.schedule")]:
        del origins[key]
    method, own = schedule
    train = settings.train
    if method.peak is not None:
        train = {**train, "learning_rate": method.peak(own)}
        origins[f"{node.name}.train.learning_rate"] = f"{node.name}.methods.{method.name}"
    return settings.model_copy(update={"schedule": Schedule(), "train": train})
