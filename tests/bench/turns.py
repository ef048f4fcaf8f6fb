"""Several training loops in turns, a step of each after the other, so that a machine whose speed drifts is fair to all.

Usage: `seconds = in_turns({"ours": functools.partial(loop, …), "stock": …}, warmup=5)`, where each loop is a function
that can be pickled and calls `done()` after every step; `train_in_turns(trainer, done)` is one for a Trainer.

Every loop has a process of its own, since libraries keep what they prepared for a shape that they saw before; only one
of them works at a time. Ratios are medians over the rounds of one loop's time by another's in the same round. Time is
that of the clock; with `OMP_NUM_THREADS=1` on a CPU it is the CPU time of the process, which others on the machine
hardly change.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any
from unittest import mock

from common.engine.environment import NOISY

Done = Callable[[], None]
Loop = Callable[[Done], None]
Way = Callable[..., dict[str, list[float]]]


def in_turns(loops: Mapping[str, Loop], *, warmup: int) -> dict[str, list[float]]:
    """Return the seconds of every step of each loop after `warmup` steps; all end with the shortest.

    Raises RuntimeError naming the loop that failed.
    """
    spawn = multiprocessing.get_context("spawn")
    turns: dict[str, Connection] = {}
    workers = []
    rounds: list[list[float]] = []
    try:
        for name, loop in loops.items():
            turns[name], theirs = spawn.Pipe()
            workers.append(spawn.Process(target=_work, args=(loop, theirs)))  # no daemon, as it may load data in others
            workers[-1].start()
            theirs.close()
            _answer_of(name, turns[name])  # built, one after the other: building is work too
        while True:
            times = []
            for name, turn in turns.items():
                turn.send("step")
                found = _answer_of(name, turn)
                if found is None:
                    return {name: [row[i] for row in rounds[warmup:]] for i, name in enumerate(loops)}
                times.append(found)
            rounds.append(times)
    finally:
        for worker in workers:
            worker.kill()
            worker.join()


def alone(loops: Mapping[str, Loop], *, warmup: int) -> dict[str, list[float]]:
    """Return the same, each loop run to its end before the next begins: a GPU cannot hold all models at once."""
    seconds = {name: in_turns({name: loop}, warmup=warmup)[name] for name, loop in loops.items()}
    rounds = min(map(len, seconds.values()))
    return {name: found[:rounds] for name, found in seconds.items()}


def here(loops: Mapping[str, Loop], *, warmup: int) -> dict[str, list[float]]:
    """Return the same, one after another in this process: no time goes into loading libraries for each."""
    from common.models.device import release_memory

    seconds: dict[str, list[float]] = {}
    for name, loop in loops.items():
        clock, times = clock_here(), seconds.setdefault(name, [])
        started = clock()

        def done(times: list[float] = times, clock: Callable[[], float] = clock) -> None:
            nonlocal started
            times.append(clock() - started)
            started = clock()

        loop(done)
        release_memory()
    rounds = min(map(len, seconds.values()))
    return {name: times[warmup:rounds] for name, times in seconds.items()}


def _answer_of(name: str, turn: Connection) -> float | None:
    try:
        answer: float | None = turn.recv()
    except EOFError:
        raise RuntimeError(f"the loop '{name}' failed; its traceback is above") from None
    return answer


def _work(loop: Loop, turn: Connection) -> None:
    """Run a loop, waiting for a turn before every step but the first, whose start is not known from here."""
    for library in NOISY:
        logging.getLogger(library).setLevel(logging.ERROR)
    clock = clock_here()
    started: float | None = None

    def done() -> None:
        nonlocal started
        turn.send(0.0 if started is None else clock() - started)
        turn.recv()
        started = clock()

    loop(done)
    turn.send(None)


def clock_here() -> Callable[[], float]:
    """Return the clock that is fair on this machine: CPU time where one thread does all the work.

    On a GPU it waits for what was started there.
    """
    import torch

    if os.environ.get("OMP_NUM_THREADS") == "1" and not torch.cuda.is_available():
        return time.process_time
    return _finished


def _finished() -> float:
    torch = sys.modules["torch"]
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def train_in_turns(trainer: Any, done: Done) -> None:
    """Train to the end, with a turn for every optimizer step."""
    with taking_turns(done):
        trainer.train()


@contextlib.contextmanager
def taking_turns(done: Done) -> Iterator[None]:
    """Have every trainer that trains meanwhile take a turn for every optimizer step."""
    from transformers import Trainer, TrainerCallback
    from transformers.trainer_callback import PrinterCallback

    class Turn(TrainerCallback):  # type: ignore[misc] # transformers is seen as Any
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            done()

    def train(trainer: Any, *args: Any, **options: Any) -> Any:
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(Turn())
        return usual(trainer, *args, **options)

    usual = Trainer.train
    with mock.patch.object(Trainer, "train", train):
        yield


def ratio(seconds: Mapping[str, list[float]], ours: str, theirs: str) -> float:
    """Return how many times as fast one loop's steps are as another's: the median over rounds."""
    return statistics.median(b / a for a, b in zip(seconds[ours], seconds[theirs], strict=True))
