"""Rows on their way through blocks: the same for any number of workers, after kills, and all of it counted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from common.config.blocks import BlockSettings, Drop, Row, RowFunction, chosen
from common.data.blocks.length import LengthSettings
from common.data.cleaning import clean, runners, workers
from common.data.cleaning.clean import Cleaning
from common.data.cleaning.runners import Runner, check_runner, run_all
from common.data.cleaning.workers import Workers
from common.data.shards import read_shard
from common.errors import ConfigError, DataError
from tests.conftest import REPOSITORY

LENGTH = LengthSettings(words=(3, 6))
# A block of a user's own, in a folder that is added to the package of blocks: it drops what it has seen before.
SEEN = """
from common.config.blocks import Block, BlockSettings, Drop
from common.data.texts import noted

class Seen:
    def __init__(self, settings, context):
        self.folder = context.folder

    def look(self, task, rows):
        with open(self.folder / f"{task.number}.txt", "w") as file:
            for row in rows:
                file.write(row["text"] + "\\n")
                yield row

    def decide(self, tasks):
        seen, repeated = set(), []
        for number in range(tasks):
            for place, text in enumerate((self.folder / f"{number}.txt").read_text().splitlines()):
                if text in seen:
                    repeated.append(f"{number} {place}")
                seen.add(text)
        (self.folder / "repeated.txt").write_text("\\n".join(repeated))

    def judge(self, task):
        repeated = set((self.folder / "repeated.txt").read_text().splitlines())
        return lambda place, row: Drop("seen") if f"{task.number} {place}" in repeated else noted(row, "looked at")

BLOCK = Block(name="seen", settings=BlockSettings, look=Seen, phrase="what was seen before")
"""


def rows(number: int = 60) -> list[Row]:
    return [{"text": " ".join(["word"] * (i % 8)), "source": "ab"[i % 2]} for i in range(number)]


def broken(raw: list[Row]) -> Iterator[Row]:
    yield from raw[:20]
    raise DataError("row 21")


def cleaning(
    folder: Path, blocks: Sequence[tuple[str, BlockSettings]] = (("length", LENGTH),), **more: Any
) -> Cleaning:  # fmt: skip
    return Cleaning(folder / "cleaning", "cpt", blocks, **more)


def made(found: Cleaning) -> list[bytes]:
    return [path.read_bytes() for path in found.results()]


def texts(found: Cleaning) -> list[str]:
    return [row["text"] for path in found.results() for row in read_shard(path)]


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tasks of few rows, and processes as soon as there are two tasks."""
    monkeypatch.setattr(clean, "SHARD_CHARACTERS", 200)
    monkeypatch.setattr(clean, "SHARES", 1)
    monkeypatch.setattr(workers, "START_SECONDS", 0)


@pytest.fixture
def with_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from common.data import blocks

    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "seen.py").write_text(SEEN)
    monkeypatch.setattr(blocks, "__path__", [*blocks.__path__, str(tmp_path / "own")])


def run(found: Cleaning, raw: Iterable[Row], workers: int = 1) -> Cleaning:
    with Workers(found, workers) as started:
        found.cut(iter(raw), started.begin)
        run_all(found, Runner(workers=workers), started)
    return found


@dataclass(frozen=True)
class Tells(Cleaning):
    """Cleaning whose tasks tell which process they ran in."""

    def run_task(self, number: int, task: int) -> None:
        (self.folder / f"process-{number}-{os.getpid()}").touch()
        super().run_task(number, task)

    def processes(self, number: int) -> set[int]:
        return {int(mark.name.split("-")[2]) for mark in self.folder.glob(f"process-{number}-*")}


@pytest.mark.usefixtures("small_shards")
def test_workers_and_order_of_tasks_change_no_byte_and_processes_begin_once_for_all_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = chosen([{"length": {"words": [2, 6]}}, {"exact": {}}])
    alone = run(cleaning(tmp_path / "1", blocks), rows())
    assert alone.tasks > 3
    together = Tells(tmp_path / "2" / "cleaning", "cpt", blocks)

    def awaiting_the_first_task() -> Iterator[Row]:
        *most, last = rows()
        yield from most
        until = time.monotonic() + 120
        while not together.accounts_of(0, 0).is_file() and time.monotonic() < until:
            time.sleep(0.02)
        assert together.accounts_of(0, 0).is_file(), "tasks begin while others are read"
        yield last

    monkeypatch.setattr(runners, "TRIES", 1)
    with Workers(together, 2) as started:
        together.cut(awaiting_the_first_task(), started.begin)
        until = time.monotonic() + 120
        while together.left(0) and time.monotonic() < until:
            time.sleep(0.02)
        run_all(together, Runner(workers=2), started)
    assert os.getpid() not in together.processes(0) | together.processes(1)
    assert len(together.processes(0) | together.processes(1)) <= 2
    backwards = cleaning(tmp_path / "3", blocks)
    backwards.cut(iter(rows()))
    for number in (0, 1):
        for task in reversed(range(backwards.tasks)):
            backwards.run_task(number, task)
        backwards.decide(number)
    assert made(alone) == made(together) == made(backwards)
    assert alone.accounts().as_dict() == together.accounts().as_dict() == backwards.accounts().as_dict()


@pytest.mark.usefixtures("small_shards", "with_seen")
def test_what_was_begun_and_not_ended_is_made_again(tmp_path: Path) -> None:
    blocks = chosen([{"length": {"words": [1, 7]}}, {"seen": {}}])
    whole = run(cleaning(tmp_path / "1", blocks), rows())
    killed = cleaning(tmp_path / "2", blocks)
    with pytest.raises(DataError):  # in the middle of reading
        killed.cut(broken(rows()))
    assert not killed.is_cut
    killed.cut(iter(rows()))
    killed.run_task(0, 1)
    killed.accounts_of(0, 1).unlink()  # between the shard and its accounts
    killed.run_task(0, 2)
    killed.shard(0, 2).with_name(".00002.jsonl.zst.fresh").write_bytes(b"half")
    run_all(killed, Runner(), Workers(killed, 1))
    assert made(whole) == made(killed)
    assert whole.accounts().as_dict() == killed.accounts().as_dict()


@pytest.mark.usefixtures("with_seen")
def test_a_block_that_sees_all_rows_judges_those_that_it_is_for_and_leaves_the_order(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "one"}], "source": "a"}
    raw: list[Row] = [
        {"text": "one", "source": "a"}, chat, {"text": "one", "source": "b"}, {"text": "two", "source": "a"},
        {"text": "one", "source": "a"}, chat,
    ]  # fmt: skip
    found = run(cleaning(tmp_path, chosen([{"seen": {"sources": ["a"]}}])), raw)
    left = [row for path in found.results() for row in read_shard(path)]
    assert left == [raw[0], chat, raw[2], raw[3], chat]
    counts = found.accounts().blocks["1 seen"]
    assert (counts["a"].seen, counts["a"].dropped, counts["a"].changed) == (3, {"seen": 1}, {"looked at": 2})
    assert "b" not in counts


def test_every_row_is_counted_and_some_of_those_that_go_are_kept(tmp_path: Path) -> None:
    found = run(cleaning(tmp_path, sample=2), rows(80)).accounts()
    counts = found.blocks["1 length"]
    assert sum(count.seen for count in counts.values()) == 80
    assert found.rows.total() == 80 - sum(count.num_dropped for count in counts.values()) == 40
    assert [(reject["reason"], reject["detail"]) for reject in found.rejects] == [
        ("too short", "0 words"), ("too short", "1 words"), ("too long", "7 words"), ("too long", "7 words"),
    ]  # fmt: skip


@dataclass(frozen=True)
class Fates(Cleaning):
    """Cleaning whose second task dies with its process, once or always."""

    always: bool = False

    def run_task(self, number: int, task: int) -> None:
        mark = self.folder / "died"
        if task == 1 and (self.always or not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        super().run_task(number, task)


@pytest.mark.long
@pytest.mark.usefixtures("small_shards")
def test_two_and_four_workers_leave_the_bytes_and_counts_of_one(tmp_path: Path) -> None:
    blocks = chosen([{"length": {"words": [2, 6]}}, {"exact": {}}, {"minhash": {}}, {"sentences": {}}])
    one, two, four = (run(cleaning(tmp_path / str(number), blocks), rows(), workers=number) for number in (1, 2, 4))
    assert one.tasks > 3
    assert made(one) == made(two) == made(four)
    assert one.accounts().as_dict() == two.accounts().as_dict() == four.accounts().as_dict()


@pytest.mark.usefixtures("small_shards")
def test_a_killed_worker_loses_nothing_and_what_killed_it_is_not_run_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "START_SECONDS", 1e-9)  # the first task is run here
    whole = run(cleaning(tmp_path / "1"), rows())
    killed = run(Fates(tmp_path / "2" / "cleaning", "cpt", [("length", LENGTH)]), rows(), workers=2)
    assert made(whole) == made(killed)
    with pytest.raises(DataError, match=r"of \d+ tasks ended 3 times without a result, task"):
        run(Fates(tmp_path / "3" / "cleaning", "cpt", [("length", LENGTH)], always=True), rows(), workers=2)


def test_what_is_done_sooner_in_this_process_is_done_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clean, "SHARD_CHARACTERS", 200)
    found = run(Tells(tmp_path / "cleaning", "cpt", [("length", LENGTH)]), rows(), workers=4)
    assert found.tasks > 10
    assert isinstance(found, Tells)
    assert found.processes(0) == {os.getpid()}


def test_tasks_wait_for_the_last_row_where_they_share_the_rows_of_earlier_stages(tmp_path: Path) -> None:
    assert cleaning(tmp_path, chosen([{"exact": {}}])).can_begin_early
    assert cleaning(tmp_path).can_begin_early
    assert not cleaning(tmp_path, chosen([{"exact": {"against": ["cpt"]}}])).can_begin_early


class Alive(dict[str, Any]):
    """A row that is counted while it is in memory."""

    now = most = 0

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        Alive.now += 1
        Alive.most = max(Alive.most, Alive.now)

    def __del__(self) -> None:
        Alive.now -= 1


def test_rows_are_written_as_they_are_read(tmp_path: Path) -> None:
    found = cleaning(tmp_path)
    found.cut(Alive(row) for row in rows(200))
    assert found.tasks == 1
    assert Alive.most <= 4


def test_tasks_grow_with_the_rows_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clean, "SHARD_CHARACTERS", 1600)
    numbered = clean._numbered({"text": "0123456789", "source": "a"} for _ in range(10_000))
    sizes = list(Counter(task for task, _ in numbered).values())
    assert sizes[:16] == [10] * 16
    assert sizes == sorted(sizes[:-1]) + sizes[-1:]
    assert max(sizes) == 160
    assert sum(sizes) == 10_000


@pytest.mark.parametrize(("executor", "message"), [("slurm", "command sbatch, which is not"), ("ray", "package ray")])
def test_an_executor_that_is_not_here_is_named(executor: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=message):
        check_runner(executor)
    check_runner("local")


ORPHANS = """
import os, sys
from pathlib import Path
from tests.data.cleaning import test_clean as t

if __name__ == "__main__":
    t.clean.SHARD_CHARACTERS, t.clean.SHARES, t.workers.START_SECONDS = 200, 1, 0
    t.run(t.Sleeps(Path(sys.argv[1]) / "cleaning", "cpt", [("length", t.LENGTH)]), t.rows(), workers=2)
"""


@dataclass(frozen=True)
class Sleeps(Cleaning):
    """Cleaning whose tasks say which process they run in, and never end."""

    def run_task(self, number: int, task: int) -> None:
        (self.folder / f"process-{os.getpid()}").touch()
        time.sleep(600)


def test_workers_end_with_the_run_that_was_killed(tmp_path: Path) -> None:
    run = subprocess.Popen([sys.executable, "-c", ORPHANS, str(tmp_path)], cwd=REPOSITORY)
    until = time.monotonic() + 120
    while len(marks := list(tmp_path.glob("cleaning/process-*"))) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    run.kill()
    run.wait()
    workers = [int(mark.name.partition("-")[2]) for mark in marks]
    assert len(workers) == 2
    while any(map(psutil.pid_exists, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(psutil.pid_exists, workers))


class Gate:
    """Keeps the word `exam` out."""

    def __call__(self) -> RowFunction:
        return lambda row: Drop("exam", "is it") if "exam" in row["text"] else row


def test_the_exam_is_kept_out_last_and_every_such_row_is_listed(tmp_path: Path) -> None:
    raw: list[Row] = [{"text": f"an exam question number {i}", "source": "a"} for i in range(30)]
    found = run(cleaning(tmp_path, gate=Gate(), sample=1), [*raw, {"text": "one two three", "source": "a"}])
    assert texts(found) == ["one two three"]
    assert len(found.accounts().rejects) == 30


def test_no_rows_and_no_blocks_are_no_error(tmp_path: Path) -> None:
    assert run(cleaning(tmp_path / "1"), []).results() == []
    untouched: Iterator[Row] = iter(rows(10))
    assert texts(run(cleaning(tmp_path / "2", []), list(untouched))) == [row["text"] for row in rows(10)]
