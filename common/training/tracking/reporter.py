"""Send trackers (`run.report_to`) the numbers of a stage while it runs, so that none of them can stop or delay it.

Usage: `with reporting(context) as reporter: trainer.add_callback(reporter.callback())`; after an exam,
`with reporting(context) as reporter: reporter.log(metrics, 0)`.

Each tracker has a thread of its own, which the training never waits for. One that cannot be imported, fails or hangs is
left out, and that is said once. Only the first process reports. What is reported is never part of a result.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from common.config.overrides import flatten
from common.errors import cut, first_line
from common.stage import StageContext
from common.system.secrets import hide
from common.training.callbacks import callback
from common.training.distributed import ranks
from common.training.tracking.trackers import RunFacts, Tracker, tracker_of

logger = logging.getLogger(__name__)
WAIT = 30.0  # seconds that trackers have at the end of a stage, all of them together, to take what is left
LONGEST_FACT = 1000  # characters of a setting that a tracker is shown


class Reporter:
    """The trackers of one stage."""

    def __init__(self, context: StageContext, about: RunFacts) -> None:
        self.context = context
        self.lines = [Line(name, about, self._left_out) for name in context.config.run.report_to]
        self.shown: set[str] = set()

    def log(self, numbers: Mapping[str, Any], step: int) -> None:
        """Hand numbers on; what is no number is left out."""
        found = {key: float(value) for key, value in numbers.items() if isinstance(value, int | float)}
        for line in self.lines:
            line.put("log", found, step)

    def open(self, step: int) -> None:
        for line in self.lines:
            line.put("open", step)

    def close(self) -> None:
        """Let trackers take what is left, within some seconds."""
        end = time.monotonic() + WAIT
        for line in self.lines:
            line.put("close")
        for line in self.lines:
            if not line.done(end - time.monotonic()):
                line.broken = True
                self._left_out(line.name, f"did not answer within {WAIT:.0f} seconds")

    def callback(self) -> Any:
        """Return a trainer's callback that reports what the trainer logs."""
        from transformers.integrations.integration_utils import rewrite_logs

        def begin(args: Any, state: Any, control: Any, **_: Any) -> None:
            self.open(state.global_step)

        def log(args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
            self.log(rewrite_logs(dict(logs or {})), state.global_step)

        return callback(on_train_begin=begin, on_log=log)

    def _left_out(self, name: str, reason: str) -> None:
        if name not in self.shown:
            self.shown.add(name)
            self.context.console.line(
                f"  {self.context.stage}: {name} is left out: {hide(reason)}. The stage goes on, and its "
                "log.jsonl holds the numbers.", always=True,
            )  # fmt: skip


class Line:
    """A tracker, and the thread that talks to it: all calls of one tracker come from one thread, in order."""

    def __init__(self, name: str, about: RunFacts, failed: Callable[[str, str], None]) -> None:
        self.name, self.about, self.failed, self.broken = name, about, failed, False
        self.calls: queue.Queue[tuple[str, tuple[Any, ...]]] = queue.Queue()
        self.finished = threading.Event()
        self.thread = threading.Thread(target=self._work, name=f"tracker-{name}", daemon=True)
        self.thread.start()

    def put(self, call: str, *arguments: Any) -> None:
        if not self.broken:
            self.calls.put((call, arguments))

    def done(self, seconds: float) -> bool:
        """Wait until the tracker is closed; whether it was in time."""
        return self.finished.wait(max(0.0, seconds))

    def _work(self) -> None:
        tracker: Tracker | None = None
        while not self.finished.is_set():
            call, arguments = self.calls.get()
            try:
                if not self.broken:
                    tracker = tracker or tracker_of(self.name, self.about)
                    getattr(tracker, call)(*arguments)
            except BaseException as error:  # a tracker may exit the process where it lacks a key
                if not self.broken:
                    self.broken = True
                    logger.debug("%s of %s", call, self.name, exc_info=True)
                    self.failed(self.name, f"{type(error).__name__}: {first_line(Exception(str(error)))}")
            if call == "close" or self.broken:
                self.finished.set()


def facts_of(context: StageContext) -> RunFacts:
    """Return what trackers get to know of a stage."""
    config = context.config
    chain = f"{config.domain}/{config.profile}"
    facts = {
        "domain": config.domain, "profile": config.profile, "pipeline": config.pipeline, "stage": context.stage,
        "kind": context.kind, "seed": config.seed, "fingerprint": context.result_id,
        **flatten(context.settings.model_dump(mode="json")),
    }  # fmt: skip
    shown = {k: cut(hide(v), LONGEST_FACT) if isinstance(v, str) else v for k, v in facts.items()}
    return RunFacts(
        f"{chain}/{context.stage}/{context.result_id}", f"{context.stage}-{context.result_id}",
        f"{chain}/{config.pipeline}", shown, context.models.parent / "trackers", context.work,
    )  # fmt: skip


@contextlib.contextmanager
def reporting(context: StageContext) -> Iterator[Reporter | None]:
    """Open the trackers that a run names, in its first process, and close them whatever happens; None without any."""
    if not context.config.run.report_to or not ranks.is_main_process():
        yield None
        return
    reporter = Reporter(context, facts_of(context))
    try:
        yield reporter
    finally:
        reporter.close()
