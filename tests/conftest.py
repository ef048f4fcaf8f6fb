"""Shared fixtures: a tiny repository-like run whose whole chain takes seconds."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from common.config.schema import Config
from common.config.stages import TrainingSettings
from common.machine import cores
from common.store.artifacts import Artifact, Store
from common.store.runs import RunFolder

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "5000")
os.environ.setdefault("MPLBACKEND", "Agg")
if "PYTEST_XDIST_WORKER" in os.environ:  # each process beside others has a core of its own
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.pop("COLUMNS", None)  # a terminal's width would wrap what tests read


def long(*values: object) -> Any:
    """Return a case of a parametrised test that `just test slow=true` alone runs."""
    return pytest.param(*values, marks=pytest.mark.long)


REPOSITORY = Path(__file__).resolve().parent.parent
# Budgets that show the plumbing, not the learning.
BUDGETS = {
    "base.tokens": "16384",
    "cpt.tokens": "16384",
    "sft.tokens": "8192",
    "dpo.epochs": "0.1",
    "embedded.preference_repeats": "1",
    "embedded.documents_per_entity": "4",
    "embedded.general_documents_per_entity": "4",
    "embedded.question_repeats": "1",
    "embedded.problem_documents": "60",
    "embedded.problem_conversations": "20",
    "evaluate.limit": "40",
    "evaluate.text_documents": "20",
    "evaluate.answer_tokens": "24",
    "run.verbosity": "quiet",
}
# Narrower layers than the tiny profile's, and as many: the weights are still what the store takes for a large file.
QUICK = BUDGETS | {"model.architecture.hidden_size": "64", "model.architecture.intermediate_size": "192"}


MOST_PROCESSES = 4


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return one process more than there are cores, as tests wait for programs that they start."""
    return min(MOST_PROCESSES, cores() + 1)


# Files that take longest go first, so that no process is left alone with one at the end.
LONGEST = ("test_demonstration.py", "test_domains.py", "test_crash.py", "test_chain.py", "test_shared_stages.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; what is in a file stays in its order."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def pytest_collection() -> None:
    """Let no garbage be looked for while tests are imported: a quarter of that time otherwise."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Look for garbage again, among what is made from here on."""
    gc.freeze()
    gc.enable()


MANY_MODULES = 500
_imported = 0  # modules whose objects the collector no longer looks at


def pytest_runtest_teardown() -> None:
    """Keep the objects of imported libraries, near a million, out of every later collection."""
    global _imported
    if len(sys.modules) - _imported > MANY_MODULES:
        _imported = len(sys.modules)
        gc.collect()
        gc.freeze()


def training(config: Config, stage: str) -> TrainingSettings:
    """Return the settings of a stage that trains on tokens."""
    settings = config.stages[stage]
    assert isinstance(settings, TrainingSettings)
    return settings


def kill_training(patch: pytest.MonkeyPatch, at: int) -> list[int]:
    """Let the training of this test break once, before its step number `at`. Return a list that each step makes longer.

    The step that breaks is in it too.
    """
    from transformers import Trainer

    step, taken = Trainer.training_step, list[int]()

    def broken(self: Any, *args: Any, **options: Any) -> Any:
        taken.append(1)
        if len(taken) == at:
            raise KeyboardInterrupt
        return step(self, *args, **options)

    patch.setattr(Trainer, "training_step", broken)
    return taken


def own_pipeline(folder: Path, text: str) -> Path:
    """Return a repository in a folder: the shipped domains, and the shipped pipelines with one more, named own."""
    root = folder / "repository"
    shutil.copytree(REPOSITORY / "pipelines", root / "pipelines")
    (root / "domains").symlink_to(REPOSITORY / "domains")
    (root / "pipelines" / "own.yaml").write_text(text, encoding="utf-8")
    return root


def linked(root: Path, stage: str, name: str = "demonstration") -> Artifact | None:
    """Return the result that a link of a medical run on the tiny profile leads to."""
    return RunFolder(Store(root).runs, "medical", "tiny", name).linked(stage)


@pytest.fixture(autouse=True)
def _own_loudness() -> Iterator[None]:
    """Leave the loudness of our loggers as it was: a test that calls the command line may turn it down."""
    logger = logging.getLogger("common")
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what tests cache out of the user's folder; all processes share one, as those of a user do."""
    from common.store import cache

    with pytest.MonkeyPatch.context() as patch:
        own = tmp_path_factory.getbasetemp()
        place = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "cache"
        patch.setattr(cache, "folder", lambda: place)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_clean_process() -> Iterator[None]:
    """Let all commands of this process ask one other what they saved: it takes longer to start than most of them."""
    from common.training.fit import clean_process

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clean_process, "close", lambda: None)
        yield
    clean_process.close()


@pytest.fixture(scope="session", autouse=True)
def _own_consents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep consents to run code out of the user's folder, and those of the user out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture
def quick_words(tmp_path: Path) -> dict[str, str]:
    """Command-line words of a quick medical run in its own store."""
    return {"domain": "medical", "out": str(tmp_path / "store"), **QUICK}


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return this process's own copy of a store that `make` fills, once for all processes of the tests."""
    own = factory.getbasetemp()
    whole = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name
    with FileLock(f"{whole}.lock"):
        if not whole.exists():
            making = factory.mktemp(name) / "store"
            make(making)
            making.rename(whole)
    return Path(shutil.copytree(whole, factory.mktemp(name) / "store", symlinks=True))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of one finished quick run; tests must not change it."""
    from common.config.resolve import resolve
    from common.console import Console
    from common.engine.run import execute

    def make(root: Path) -> None:
        execute(resolve({"domain": "medical", "out": str(root), **QUICK}, REPOSITORY), Console("quiet"))

    return made_once(tmp_path_factory, "finished", make)


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A private copy of the finished store."""
    shutil.copytree(finished, tmp_path / "store", symlinks=True)
    return tmp_path / "store"
