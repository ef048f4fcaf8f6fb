"""Measure the steps of a training and record how they compare with the estimate: after a few steps, and at the end.

Usage: `watch = Stopwatch(context, tokens_per_step)`; `watch.step()` after every optimizer step; `watch.finish()` last.

The first step is left out, in which libraries prepare themselves. The median of the steps counts, so that a checkpoint
or an evaluation in between does not.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections import deque
from typing import TYPE_CHECKING

from common.config.kinds import kind_of
from common.cost.corrections import Corrections
from common.cost.outlook import pace_of, setting_in
from common.cost.speed import step_seconds, token_seconds

if TYPE_CHECKING:
    from common.stage import StageContext

logger = logging.getLogger(__name__)
MEASURED = 10  # steps, after the first, whose speed is written down at once
MOST = 1000  # of the last steps, which count at the end
LEAST = 2


class Stopwatch:
    """The times of one training's steps."""

    def __init__(self, context: StageContext, tokens_per_step: int) -> None:
        self.context, self.tokens_per_step = context, tokens_per_step
        self.last: float | None = None
        self.seconds: deque[float] = deque(maxlen=MOST)
        self.steps = 0

    def step(self) -> None:
        now = time.monotonic()
        if self.last is not None:
            self.seconds.append(now - self.last)
            self.steps += 1
            if self.steps == MEASURED:
                self.finish()
        self.last = now

    def finish(self) -> None:
        """Record what was measured, if there are enough steps and the run is planned for this machine."""
        if len(self.seconds) < LEAST:
            return
        found = setting_in(self.context)
        if found is None or not found[1].here:
            return
        setting, hardware = found
        estimated = step_seconds(setting, hardware)
        if not kind_of(setting.kind).online:  # rows of pairs are seldom as long as they may be: by the token, then
            estimated = token_seconds(setting, hardware) * self.tokens_per_step
        try:
            seen = statistics.median(self.seconds)
            Corrections(self.context.models.parent).note(pace_of(setting, hardware), estimated=estimated, seen=seen)
        except OSError as error:
            logger.warning("%s: the speed of its first steps could not be recorded: %s", self.context.stage, error)
