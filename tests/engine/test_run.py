"""From the command to the trainer's loop in a few steps, whatever the stage."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import transformers

from common.cli.main import main
from tests.conftest import QUICK

MOST_FRAMES = 6
MOST_FRAMES_IN_A_ROUND = 8  # expert iteration trains inside its rounds
ONLINE = {"steps": "2", "prompts_per_step": "2", "samples": "4", "answer_tokens": "12", "watch": "{prompts: 8}"}
SAMPLING = {"samples": "2", "answer_tokens": "8", "passing": "0", "heldout": "8", "prompts": "8"}


class Reached(Exception):
    """Training was about to begin."""


def frames_of_ours(frame: FrameType | None) -> list[str]:
    """Return the functions of `common` on the stack, the outermost first, without the command line's `main`."""
    found = []
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        found += [f"{module}.{frame.f_code.co_qualname}"] if module.split(".")[0] == "common" else []
        frame = frame.f_back
    return [name for name in reversed(found) if name != "common.cli.main.main"]


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What led to `Trainer.train`, once it is called; it goes no further."""
    seen: list[str] = []

    def train(self: Any, *args: Any, **kwargs: Any) -> None:
        seen.extend(frames_of_ours(sys._getframe(1)))
        raise Reached

    monkeypatch.setattr(transformers.Trainer, "train", train)
    return seen


def test_few_calls_lead_from_the_command_to_the_trainer(stack: list[str], tmp_path: Path) -> None:
    words = [f"{key}={value}" for key, value in {**QUICK, "out": str(tmp_path)}.items()]
    with pytest.raises(Reached):
        main(["run", "domain=medical", *words])
    assert len(stack) <= MOST_FRAMES, " -> ".join(stack)
    assert stack[0] == "common.cli.commands.run"
    assert stack[-1] == "common.training.loop.trainer.TrainingLoop.run"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pipeline", "stage", "most", "given"),
    [
        ("full", "cpt", MOST_FRAMES, {"tokens": "8192"}),
        ("full", "sft", MOST_FRAMES, {"tokens": "4096"}),
        ("full", "dpo", MOST_FRAMES, {"epochs": "0.2"}),
        ("kto", "kto", MOST_FRAMES, {"epochs": "0.1"}),
        ("orpo", "orpo", MOST_FRAMES, {"epochs": "0.1"}),
        ("rlhf", "reward", MOST_FRAMES, {"epochs": "0.1"}),
        ("grpo", "grpo", MOST_FRAMES, ONLINE),
        ("rloo", "rloo", MOST_FRAMES, ONLINE),
        ("rlvr", "expert", MOST_FRAMES_IN_A_ROUND, SAMPLING),
    ],
)
def test_few_calls_lead_to_the_trainer_of_each_kind(
    pipeline: str, stage: str, most: int, given: dict[str, str], stack: list[str], copy: Path
) -> None:
    settings = {key: value for key, value in QUICK.items() if not key.startswith("dpo.") or stage == "dpo"}
    settings |= {"pipeline": pipeline, "out": str(copy)}
    settings |= {f"{stage}.{key}": value for key, value in given.items()}
    with pytest.raises(Reached):
        main(["run", "domain=medical", *(f"{key}={value}" for key, value in settings.items())])
    assert len(stack) <= most, " -> ".join(stack)
    assert stack[3].startswith("common.stages.")
    assert stack[-1] == "common.training.loop.trainer.TrainingLoop.run"


def test_few_calls_lead_from_a_frozen_plan_to_the_trainer(stack: list[str], tmp_path: Path) -> None:
    words = [f"{key}={value}" for key, value in {**QUICK, "out": str(tmp_path)}.items()]
    assert main(["plan", "domain=medical", "freeze=true", *words]) == 0
    with pytest.raises(Reached):
        main(["stage", str(tmp_path / "runs" / "medical" / "tiny" / "demonstration" / "plan.json"), "base"])
    assert len(stack) <= MOST_FRAMES, " -> ".join(stack)
