"""Measure the steps of a training and record how they compare with the estimate: once they are enough, and at the end.

Usage: `watch = Stopwatch(context, tokens_per_step)`; `watch.step()` after every optimizer step; `watch.finish()` last.

The first step is left out, in which libraries prepare themselves. The median of the steps counts, so that a checkpoint
or an evaluation in between does not. Short trainings record nothing, nor do those on a CPU that others use as well.
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
ENOUGH = 50  # steps after the first that say something
ENOUGH_SECONDS = 20.0  # or as long a time, in LEAST steps
LEAST = 2
MOST = 1000  # of the last steps, which count at the end
OWN = 0.6  # of the time of its threads that a process must have had on a CPU: with two such processes each has half


class Stopwatch:
    """The times of one training's steps."""

    def __init__(self, context: StageContext, tokens_per_step: int) -> None:
        self.context, self.tokens_per_step = context, tokens_per_step
        self.started = self.last = 0.0  # after the first step, and after the last one
        self.cpu = 0.0  # seconds of all threads when the first step ended
        self.seconds: deque[float] = deque(maxlen=MOST)
        self.steps = 0  # with the first
        self.noted = False

    def step(self) -> None:
        now = time.monotonic()
        self.steps += 1
        if self.steps == 1:
            self.started, self.cpu = now, time.process_time()
        else:
            self.seconds.append(now - self.last)
        self.last = now
        if not self.noted and self._is_enough():
            self.noted = True
            self.finish()

    def _is_enough(self) -> bool:
        steps = self.steps - 1
        return steps >= ENOUGH or (steps >= LEAST and self.last - self.started >= ENOUGH_SECONDS)

    def _is_alone(self, threads: int) -> bool:
        """Whether this process had its threads' time; others on the same cores make a machine look slow."""
        return time.process_time() - self.cpu >= OWN * threads * (self.last - self.started)

    def finish(self) -> None:
        """Record what was measured, if it is enough and the run is planned for this machine."""
        if not self._is_enough():
            return
        found = setting_in(self.context)
        if found is None or not found[1].here:
            return
        setting, hardware = found
        if hardware.device == "cpu":
            import torch

            if not self._is_alone(torch.get_num_threads()):
                logger.info("%s: other processes use the CPU as well; its speed is not recorded", self.context.stage)
                return
        estimated = step_seconds(setting, hardware)
        if not kind_of(setting.kind).online:  # rows of pairs are seldom as long as they may be: by the token, then
            estimated = token_seconds(setting, hardware) * self.tokens_per_step
        try:
            seen = statistics.median(self.seconds)
            Corrections(self.context.models.parent).note(pace_of(setting, hardware), estimated=estimated, seen=seen)
        except OSError as error:
            logger.warning("%s: its speed could not be recorded: %s", self.context.stage, error)
