"""The methods of one training: its schedule, what happens around its steps, and the terms of its loss.

Usage: `applied = Applied.of(context, steps)`, then `trainer.add_callback(applied.callback(trainer))`.

What methods are is `common.config.methods`. Where none is on there is no such object, and a trainer does what it does
without. State is saved in trainer checkpoints (`common.training.methods.state`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from common.config.methods import (
    LossBatch,
    LossMethod,
    Measured,
    Method,
    MethodSettings,
    OptimizerMethod,
    ScheduleMethod,
    Step,
    chosen,
    described,
)
from common.config.stages import TrainingSettings
from common.errors import ConfigError
from common.training.callbacks import callback
from common.training.distributed import ranks
from common.training.methods.state import HEAD, load_state, save_state
from common.training.methods.top_k import kept_in
from common.training.rows.shards import SCORE

if TYPE_CHECKING:
    from common.stage import StageContext

_M = TypeVar("_M", bound=Method)
SHOWN = 10  # steps of a course
NEXT_TOKEN = "next_token_loss"  # in the log, where terms beside it make the loss another


class Applied:
    """What the methods of a stage do in its trainer."""

    def __init__(self, on: Sequence[tuple[Method, MethodSettings]]) -> None:
        self.on = on
        self.terms = _of_place(on, LossMethod)
        self.rules = _of_place(on, OptimizerMethod)
        self.schedule = next(iter(_of_place(on, ScheduleMethod)), None)
        self.probe: Sequence[tuple[Any, Any]] = ()  # replay text for rules that measure on it; given as the teacher is
        self.heads: dict[str, Any] = {}  # modules of losses that learn with the model, by their methods
        self.teacher: Any = None  # of losses that compare with the stage before; given once the trainer is there
        self.state: dict[str, dict[str, Any]] = {}  # of each rule
        self.sums: dict[str, Any] = {}  # of the terms, since the last line of the log
        self.learned: Any = 0  # positions that they are sums over
        self.noted: dict[str, float] = {}  # by rules, since the last line of the log
        self.rates_of_schedule: list[float] = []  # of the optimizer's groups, while methods change them for a step

    @classmethod
    def of(cls, context: StageContext, steps: int) -> Applied | None:
        """Return the methods of a stage that trains for some steps, or None. Raises ConfigError for phases too long."""
        settings = cast(TrainingSettings, context.settings)
        on = chosen(settings)
        check_steps(context.stage, settings, steps)
        return cls(on) if on else None

    @property
    def needs_teacher(self) -> bool:
        return any(method.teacher and not method.keeps(own) for method, own in self.terms)

    @property
    def keeps(self) -> int:
        """The teacher's logits at each position that are kept before the first step; 0: none."""
        return max((method.keeps(own) for method, own in self.terms), default=0)

    def as_kept(self, teacher_NV: Any, next_N: Any) -> Any:
        """Return the logits of which the largest are kept: the teacher's, or what a method makes of them."""
        change = next(method.as_kept for method, own in self.terms if method.keeps(own))
        return teacher_NV if change is None else change(teacher_NV, next_N)

    @property
    def probe_tokens(self) -> int:
        """Tokens of replay text that rules measure on."""
        return max((method.probe_tokens(own) for method, own in self.rules), default=0)

    @property
    def apart(self) -> bool:
        """Whether each weight needs a group of its own in the optimizer."""
        return any(method.apart for method, _ in self.rules)

    def forward(self) -> dict[str, Any]:
        """Return what the forward pass is asked for besides the logits."""
        return {name: value for method, _ in self.terms for name, value in method.forward.items()}

    def attach(self, model: Any) -> None:
        """Give the model the modules of losses that learn with it, so that its trainer trains and keeps them too."""
        size = model.config.get_text_config().hidden_size
        for method, own in self.terms:
            if method.head is not None:
                self.heads[method.name] = method.head(size, own).to(model.device)
                setattr(model, HEAD + method.name, self.heads[method.name])

    def detach(self, model: Any) -> None:
        """Take these modules away from a model that has learned."""
        for name in self.heads:
            delattr(model, HEAD + name)

    def multiplier(self, steps: int) -> Callable[[int], float]:
        """Return the schedule of a training of some steps, as torch's LambdaLR takes it."""
        assert self.schedule is not None, "no schedule is on"
        method, own = self.schedule
        return lambda step: method.multiplier(step, steps, own)

    def rates(self, model: Any) -> dict[str, float]:
        """Return the shares of the learning rate that methods give to weights; two multiply."""
        found: dict[str, float] = {}
        for method, own in self.rules:
            for name, share in (method.rates(model, own) if method.rates else {}).items():
                found[name] = found.get(name, 1.0) * share
        return found

    def optimizer(self, made: Any, model: Any, steps: int) -> Any:
        """Return the optimizer of a training of some steps: that of a method, or the one that was made for it."""
        for method, own in self.rules:
            if method.optimizer is not None:
                made = method.optimizer(made, model, own, steps)
        return made

    @property
    def replaces(self) -> bool:
        """Whether the loss of the next token is left out."""
        return any(method.replaces for method, _ in self.terms)

    def loss(
        self, inputs: Mapping[str, Any], outputs: Any, next_BT: Any, model: Any, plain: Callable[[], Any],
        extra: Mapping[str, Any],
    ) -> Any:  # fmt: skip
        """Return the sum over the learned positions of all terms and, unless one takes its place, of the plain loss.

        `inputs` are those of the forward pass that gave `outputs`; a teacher beside reads the same. `extra` are the
        columns that are not for the model: scores of documents, and what was kept of a teacher.
        """
        taught = self.teacher(**inputs, use_cache=False).logits if self.needs_teacher else None
        by_name = {name.removeprefix(SCORE): value for name, value in extra.items() if name.startswith(SCORE)}
        kept = kept_in(extra) if self.keeps else None
        batch = LossBatch(outputs.logits, next_BT, taught, outputs, by_name, kept=kept, model=model)
        total: Any = 0.0
        if not self.replaces:
            total = plain()
            self.sums[NEXT_TOKEN] = self.sums.get(NEXT_TOKEN, 0.0) + total.detach()
            total = total * math.prod(method.next_token(own) for method, own in self.terms)
        for method, own in self.terms:
            term, measured = method.term(replace(batch, head=self.heads.get(method.name)), own)
            total = total + term
            for name, value in measured.items():
                key = f"{method.name}/{name}"
                self.sums[key] = self.sums.get(key, 0.0) + value
        self.learned = self.learned + (batch.next_BT != -100).sum()
        return total

    def logged(self) -> dict[str, float]:
        """Return what is logged now, over all processes, and begin to measure again."""
        names = sorted(self.sums)
        rows = ranks.all_gather([float(self.learned), *(float(self.sums[name]) for name in names)])
        learned = sum(row[0] for row in rows)
        means = {name: sum(row[place] for row in rows) / max(1.0, learned) for place, name in enumerate(names, 1)}
        found = {**means, **self.noted}
        self.sums, self.learned, self.noted = {}, 0, {}
        return found

    def callback(self, trainer: Any) -> Any:
        """Return what runs the rules around steps and saves their state: before checkpoints are marked as whole."""

        def step(state: Any) -> Step:
            return Step(trainer.model, trainer.optimizer, state.global_step, state.max_steps, self.probe)

        def begin(args: Any, state: Any, control: Any, **_: Any) -> None:
            now = step(state)
            saved = load_state(_checkpoint(args, state), now) if state.global_step else None
            assert saved is not None or not state.global_step, "a trainer checkpoint holds the state of its methods"
            self.state = {
                method.name: method.begin(now, own) if saved is None else saved.get(method.name, {})
                for method, own in self.rules
            }

        def before(args: Any, state: Any, control: Any, **_: Any) -> None:
            self.rates_of_schedule = [group["lr"] for group in trainer.optimizer.param_groups] if self.apart else []
            now = replace(step(state), number=state.global_step + 1)
            for method, own in self.rules:
                if method.before_step is not None:
                    self._note(method.name, method.before_step(now, own, self.state[method.name]))

        def taken(args: Any, state: Any, control: Any, **_: Any) -> None:
            """Set rates back, as a schedule may go on from them, or stay where float16 passes a step over."""
            for group, rate in zip(trainer.optimizer.param_groups, self.rates_of_schedule, strict=False):
                group["lr"] = rate

        def after(args: Any, state: Any, control: Any, **_: Any) -> None:
            for method, own in self.rules:
                if method.after_step is not None:
                    self._note(method.name, method.after_step(step(state), own, self.state[method.name]))
            # Lines come at even steps; without one at the last, what was measured there would be lost.
            control.should_log |= bool(self.noted) and state.global_step == state.max_steps

        def save(args: Any, state: Any, control: Any, **_: Any) -> None:
            save_state(_checkpoint(args, state), self.state)

        return callback(
            on_train_begin=begin, on_pre_optimizer_step=before, on_optimizer_step=taken, on_step_end=after, on_save=save
        )  # fmt: skip

    def _note(self, name: str, measured: Measured | None) -> None:
        self.noted |= {f"{name}/{key}": float(value) for key, value in (measured or {}).items()}

    def measured(self, rows: Mapping[str, Any], log: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return what results say of each method: paper, settings, and the last numbers; `rows` are those of orders.

        Of numbers that a method has charted it is what the log says at up to ten steps.
        """
        found = {}
        last = {key: value for line in log for key, value in line.items()}
        for method, own in self.on:
            numbers = {
                key.partition("/")[2]: round(value, 6)
                for key, value in last.items()
                if key.startswith(f"{method.name}/")
            }
            found[method.name] = {**described(method, own), "measured": {**numbers, **rows.get(method.name, {})}}
            if course := _course(log, method):
                found[method.name]["course"] = course
        return {"methods": found}


def _course(log: Sequence[Mapping[str, Any]], method: Method) -> list[dict[str, Any]]:
    """Return what a method has logged of its charted numbers, at steps that are evenly spread, the last one too.

    Lines of the log may come later than what was measured, whose `step` then says when that was.
    """
    named = {f"{method.name}/{name}": name for name in method.charted}
    lines = [
        {
            "step": int(line.get(f"{method.name}/step", line["step"])),
            **{name: line[key] for key, name in named.items() if key in line},
        }
        for line in log
        if named.keys() & line.keys()
    ]
    places = {round((len(lines) - 1) * part / (SHOWN - 1)) for part in range(SHOWN)} if lines else set()
    return [lines[place] for place in sorted(places)]


def check_steps(stage: str, settings: TrainingSettings, steps: int) -> None:
    """Check that methods go with the steps of a stage, as phases of a schedule. Raises ConfigError."""
    for method, own in chosen(settings):
        if problem := method.misfit(steps, own, settings):
            raise ConfigError(f"{stage}.methods.{method.name}: {problem}.")


def check_experts(stage: str, settings: TrainingSettings) -> None:
    """Check that no term of the loss meets the loss that evens the load of experts. Raises ConfigError."""
    if name := next((method.name for method, _ in chosen(settings) if isinstance(method, LossMethod)), ""):
        raise ConfigError(
            f"{stage}.methods.{name}: this model's experts have a loss of their own, which goes with no other here. "
            f"Leave the method out, or that loss ({stage}.train.router_aux_loss_coef=0)."
        )


def _of_place(on: Sequence[tuple[Method, MethodSettings]], place: type[_M]) -> list[tuple[_M, MethodSettings]]:
    return [(method, own) for method, own in on if isinstance(method, place)]


def _checkpoint(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
