"""The parts of `just gpu`, the most telling first: each is a function of a device and an empty folder.

Usage: `for part in parts_of("cuda"): part.run("cuda", folder)`.

On a CPU the same functions run over a small model with random weights.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import os
import statistics
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from tests.bench import alignment, cost, training
from tests.bench.figures import Figure, Part, SkippedError
from tests.bench.material import SMALL, build, material
from tests.bench.turns import here, ratio
from tests.conftest import QUICK, REPOSITORY

WARMUP, STEPS = 2, 3
LARGE = "qwen3-1.7b"
STOCK_AIM = training.FLOORS["cuda"][training.STOCK]
# In the place of the 100 million weights of `just bench cost`, where a CPU only shows that all parts run.
SMALL_SIZES = {
    "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 4096,
}  # fmt: skip
MOST_ROUNDING = 2.0  # what variable-length attention may lose against SDPA in the same precision


def name_of(device: str) -> str:
    """Return what the device is. Raises ConfigError where torch sees no GPU."""
    import torch

    from common.engine.provenance import hardware

    if device == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError("torch sees no CUDA device here. `just gpu device=cpu` runs the same in tiny shapes.")
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{hardware()['cpu']}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"


def parts_of(device: str) -> list[Part]:
    """Return the parts in their order; the seconds of those on a GPU are guesses for one of 80 GB."""
    if device == "cpu":
        return [*_general(60), *_of_model(SMALL, 60)]
    large, small = _of_model(LARGE, 100), _of_model("qwen3-0.6b", 60)
    general = _general(60)
    # What nothing else can tell first: it runs at all, attention, the aims; then the same on a smaller model.
    cpt, sft, dpo, qlora, grpo = large
    return [*general[:2], cpt, *general[2:], sft, dpo, qlora, small[4], *small[:4], grpo]


def _general(seconds: float) -> list[Part]:
    return [
        Part("tiny chain", tiny_chain, 1.5 * seconds),
        Part("attention", attention, 0.5 * seconds),
        *(
            Part(f"plan: {case.name}", functools.partial(against_plan, case), seconds)
            for case in cost.CASES
            if case.name in ("all weights", "checkpointed, twice the batch")
        ),
    ]


def _of_model(model: str, seconds: float) -> list[Part]:
    return [
        *(Part(f"{stage} {model}", functools.partial(speed, stage, model), seconds) for stage in ("cpt", "sft", "dpo")),
        Part(f"qlora {model}", functools.partial(qlora, model), seconds),
        Part(f"grpo {model}", functools.partial(grpo, model), seconds),
    ]


def tiny_chain(device: str, folder: Path) -> list[Figure]:
    """Take the medical domain through the tiny chain in small budgets, from its data to a checkpoint with a card."""
    from common.config.resolve import resolve
    from common.console import Console
    from common.engine.run import execute

    resolved = resolve({"domain": "medical", "out": str(folder), "run.device": device, **QUICK}, REPOSITORY)
    execute(resolved, Console("quiet"))
    return read_chain(folder)


def read_chain(root: Path) -> list[Figure]:
    """Return what a finished run of one domain says of itself. Raises ValueError where there is none."""
    (view,) = root.glob("runs/*/*/*")
    assert (view / "card" / "README.md").is_file(), "the chain ended without a card"
    points = json.loads((view / "summary.json").read_text(encoding="utf-8"))["checkpoints"]
    manifests = {
        name: json.loads((view / name / "manifest.json").read_text(encoding="utf-8"))
        for name in ("base", "cpt", "sft", "dpo")
    }
    return [
        Figure("checkpoints with an exam", len(points)),
        *(Figure(f"last loss of {name}", found["metrics"]["final_loss"]) for name, found in manifests.items()),
    ]


def attention(device: str, folder: Path) -> list[Figure]:
    """Compare logits over packed rows: our attention and SDPA in a narrow type, each against SDPA in float32.

    As a control, the documents of a row that see one another: a leak would look like it.
    """
    import torch

    from common.training.speed.attention import with_attention

    model = SMALL if device == "cpu" else "qwen3-0.6b"
    m = material(model, "cpt", folder, 1)
    ids = torch.tensor([number for found, _ in m.documents for number in found][: m.length], device=device)
    positions = torch.cat([torch.arange(len(found), device=device) for found, _ in m.documents])[: m.length]
    batch = {"input_ids": ids[None], "position_ids": positions[None]}
    places = torch.arange(0, m.length, max(1, m.length // 512), device=device)
    learner = build(model, device).eval()
    # Random layers move a token's state by little: larger weights let attention count.
    with torch.no_grad():
        for name, weights in learner.named_parameters():
            if "self_attn" in name and weights.ndim == 2:
                weights.mul_(3.0)
    run = m.context.config.run

    def logits(attention: str, dtype: Any, given: Any) -> Any:
        run_with = run.model_copy(update={"attention": attention})
        with (
            torch.no_grad(),
            with_attention(learner, run_with, device) as name,
            torch.autocast(device, dtype, enabled=dtype is not torch.float32),
        ):
            used.add(name)
            return learner(**given, use_cache=False, logits_to_keep=places).logits.float()

    used: set[str] = set()
    exact = logits("sdpa", torch.float32, batch)
    mixed = {**batch, "position_ids": torch.arange(m.length, device=device)[None]}
    theirs = logits("sdpa", torch.bfloat16, batch) - exact
    used.clear()
    ours = logits("auto", torch.bfloat16, batch) - exact
    (name,) = used
    leaked = logits("sdpa", torch.float32, mixed) - exact
    scale = float(exact.std())
    rounding, base = (float(d.square().mean().sqrt()) / scale for d in (ours, theirs))
    leak = float(leaked.square().mean().sqrt()) / scale
    return [
        Figure(f"documents in a row ({name})", int((batch["position_ids"] == 0).sum())),
        Figure("logits of ours, away from float32", rounding, "share"),
        Figure("logits of SDPA, away from float32", base, "share"),
        Figure("documents that see one another (control)", leak, "share"),
        Figure("ours away, of what SDPA is away", rounding / base, "x", within=MOST_ROUNDING),
        Figure("control away, of what ours is away", leak / rounding, "x", at_least=3.0),
    ]


def speed(stage: str, model: str, device: str, folder: Path) -> list[Figure]:
    """Train a few steps: ours, the plain loop, and stock TRL with documents apart."""
    case = training.Case(model, stage, folder, WARMUP + STEPS)
    found = training.speeds(case, here, warmup=WARMUP, leave_out=(training.WRAPPED,))
    aim = training.GOAL_OF_MATRIX_RATE if (stage, model) == ("cpt", LARGE) else None
    return _figures(found, stock_aim=STOCK_AIM, share_aim=aim)


def _figures(
    found: dict[str, training.Speed], *, stock_aim: float | None = None, share_aim: float | None = None
) -> list[Figure]:
    figures = []
    for name, speed in found.items():
        figures.append(Figure(name, speed.tokens_per_second, "tokens/s"))
        ours = name == training.OURS
        figures.append(Figure(f"{name}, of the matrix rate", speed.share, "share", share_aim if ours else None))
        if not ours:
            figures.append(Figure(f"ours against {name}", speed.ratio, "x", stock_aim if "stock" in name else None))
    return figures


def qlora(model: str, device: str, folder: Path) -> list[Figure]:
    """Train an adapter on weights of four bits: ours and stock TRL. Raises SkippedError without bitsandbytes."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise SkippedError("bitsandbytes is not installed")
    case = training.Case(model, "sft", folder, WARMUP + STEPS, (("sft.peft", "qlora"),))
    return _figures(training.speeds(case, here, warmup=WARMUP, leave_out=(training.PLAIN, training.WRAPPED)))


def grpo(model: str, device: str, folder: Path) -> list[Figure]:
    """Train with GRPO on medical prompts: ours and stock TRL."""
    loops = {
        name: functools.partial(
            alignment.rewarded, "grpo", folder, name == training.OURS, model=model, steps=WARMUP + STEPS, device=device
        )
        for name in (training.OURS, training.STOCK)
    }
    seconds = here(loops, warmup=WARMUP)
    return [
        *(Figure(f"{name}, a step", statistics.median(times), "s") for name, times in seconds.items()),
        Figure("ours against stock TRL", ratio(seconds, training.OURS, training.STOCK), "x"),
    ]


def against_plan(case: cost.Case, device: str, folder: Path) -> list[Figure]:
    """Run a stage and compare its memory and time with what `plan` says."""
    if device == "cpu":
        if not os.access("/proc/self/clear_refs", os.W_OK):
            raise SkippedError("this system does not tell the most memory of a process by phase")
        sizes = {f"model.architecture.{key}": str(value) for key, value in SMALL_SIZES.items()}
        case = dataclasses.replace(case, words=case.words | sizes)
    memory, (planned, taken) = cost.measured(case, device, folder)
    figures = [
        Figure(f"memory, {phase}: plan against measured", estimated / seen - 1, "share", within=cost.MEMORY)
        for phase, (estimated, seen) in memory.items()
    ]
    return [*figures, Figure("time: plan against measured", planned / taken - 1, "share", within=cost.TIME)]
