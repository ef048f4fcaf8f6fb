"""GRPO and RLOO against a stock TRL script with the same settings, DPO with and without a precomputed reference, and
sampling with prompts of like length in a batch or in their own order.

Speeds are optimizer steps, or answers, per second of the loop alone, after warm-up steps, alternating over several
rounds. All start from the same fresh tiny model over the medical domain's prompts and pairs, sampling from prompts of
5 to 400 tokens; an untrained model never stops, so every answer is as long as it may be and all do the same work.
"""

from __future__ import annotations

import dataclasses
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.console import Console
from common.evaluation.matching import normalise_text
from common.layers import resolve
from common.libraries import prepare
from common.plan import open_corpus
from common.rewards.mix import Mix
from common.stages import StageContext
from tests.bench.training import WARMUP, seconds_of
from tests.conftest import REPOSITORY

STEPS, ROUNDS = 6, 3
NUM_PROMPTS = 120


def context_for(stage: str, folder: Path, pipeline: str | None = None) -> StageContext:
    resolved = resolve({"domain": "medical", "pipeline": pipeline or stage}, REPOSITORY)
    prepare(resolved.config.run, asks_hub=False)
    for name in ("out", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return StageContext(
        stage, stage, resolved.config.stages[stage], resolved.config, {}, None, open_corpus(resolved),
        folder / "out", folder / "work", folder / "models", Console("quiet"),
    )  # fmt: skip


def saved_model(context: StageContext, tokenizer: Any) -> Any:
    """Return a fresh model that lies in a folder: TRL loads the reference of GRPO and RLOO from there."""
    from transformers import AutoModelForCausalLM

    from common.stages.base import initialise

    folder = context.work / "model"
    if not folder.exists():
        initialise(context, tokenizer).save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder)


def rewarded(name: str, context: StageContext, tokenizer: Any, *, ours: bool) -> float:
    """Return the speed of GRPO or RLOO: our reward and callback, or TRL's trainer with a plain function.

    The watch is left out on our side: it is paid per look, and a plain script looks at nothing.
    """
    import trl
    from datasets import Dataset

    from common.stages.rewarded import Reward, row_column, skipper
    from common.training.options import rewarded_options
    from common.training.prompts import read_prompts

    settings: Any = context.settings
    rows, _ = read_prompts(context, tokenizer)
    model = saved_model(context, tokenizer)
    few = settings.model_copy(update={"steps": WARMUP + STEPS, "answer_tokens": 32})
    options = rewarded_options(
        few, context.config.run, context.work / "trainer", seed=0, device="cpu", stage=name
    )  # fmt: skip
    mix = Mix.of({"exact": {"weight": 1.0}})
    reward: Any = Reward(mix, tokenizer.eos_token_id, settings.samples) if ours else plain_reward
    trainer = getattr(trl, f"{name.upper()}Trainer")(
        model=model,
        reward_funcs=reward,
        args=getattr(trl, f"{name.upper()}Config")(**options),
        train_dataset=Dataset.from_list([{"prompt": row["prompt"], "row": row_column(row)} for row in rows]),
        processing_class=tokenizer,
    )
    if ours:
        trainer.add_callback(skipper(reward))
    return STEPS / seconds_of(trainer)


def plain_reward(completions: list[Any], row: list[str], **_: Any) -> list[float]:
    """What a script of its own would say for the same reward: are these the right words?"""
    rights = [json.loads(known)["answer"] for known in row]
    return [
        float(normalise_text(messages[0]["content"]) == normalise_text(right))
        for messages, right in zip(completions, rights, strict=True)
    ]


def dpo(context: StageContext, tokenizer: Any, *, precomputed: bool) -> float:
    """Return the speed of DPOTrainer over our options, its reference computed in advance or at every step."""
    import copy

    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from common.training.options import preference_options
    from common.training.preferences import read_pairs

    settings: Any = context.settings
    pairs, _ = read_pairs(context, tokenizer, "preference")
    model = saved_model(context, tokenizer)
    options = preference_options(
        settings, context.config.run, context.work / "trainer", num_pairs=len(pairs), seed=0, device="cpu", stage="dpo"
    )
    steps = min(4 * (WARMUP + STEPS), len(pairs) // settings.batch_pairs)
    options |= {"max_steps": steps, "precompute_ref_log_probs": precomputed}
    trainer = DPOTrainer(
        model=model,
        ref_model=None if precomputed else copy.deepcopy(model),
        args=DPOConfig(**options),
        train_dataset=Dataset.from_list([{k: p.row[k] for k in ("prompt", "chosen", "rejected")} for p in pairs]),
        processing_class=tokenizer,
    )
    speed: float = (steps - WARMUP) / seconds_of(trainer)
    return speed


def sampling(context: StageContext, tokenizer: Any, *, alike: bool) -> float:
    """Return answers per second; prompts that are not sorted are dealt into batches as if all were the longest."""
    from unittest.mock import patch

    from common.training import sampling

    settings: Any = context.settings
    words = ["word " * (5 + 395 * turn // NUM_PROMPTS) for turn in range(NUM_PROMPTS)]
    rows = [{"prompt": [{"role": "user", "content": text}], "source": "bench", "answer": "x"} for text in words]
    random.Random(0).shuffle(rows)
    lengths = [len(tokenizer.apply_chat_template(row["prompt"], return_dict=False)) for row in rows]
    size = max(1, settings.generated_tokens // ((max(lengths) + settings.answer_tokens) * settings.samples))
    dealt = [list(range(len(rows)))[start : start + size] for start in range(0, len(rows), size)]
    model = saved_model(context, tokenizer)
    mix = Mix.of({"stopped": {}})
    started = time.perf_counter()
    if alike:
        sampling.draw(context, model, tokenizer, rows, mix)
    else:
        with patch.object(sampling, "batches_of", lambda *_: iter(dealt)):
            sampling.draw(context, model, tokenizer, rows, mix)
    num_answers: int = len(rows) * settings.samples
    return num_answers / (time.perf_counter() - started)


def compare(
    title: str, least: float, ours: Callable[[], float], theirs: Callable[[], float], other: str, unit: str = "steps/s"
) -> None:
    """Print our median speed, theirs, and whether the ratio reaches `least`; rounds alternate."""
    speeds: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        speeds[0].append(ours())
        speeds[1].append(theirs())
    first, second = map(statistics.median, speeds)
    mark = "ok  " if first / second >= least else "MISS"
    print(f"  {mark} {title:<28} {first:6.2f} {unit}, {other} {second:6.2f}: {first / second:.2f} x (>= {least})")


def main() -> None:
    from common.stages.base import make_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        for name in ("grpo", "rloo"):
            context = context_for(name, Path(folder) / name)
            tokenizer = make_tokenizer(context)
            compare(
                name, 1.0, lambda n=name, c=context, t=tokenizer: rewarded(n, c, t, ours=True),  # type: ignore[misc] # names of the loop, bound
                lambda n=name, c=context, t=tokenizer: rewarded(n, c, t, ours=False), "stock TRL",  # type: ignore[misc] # the same
            )  # fmt: skip
        context = context_for("dpo", Path(folder) / "dpo", pipeline="full")
        tokenizer = make_tokenizer(context)
        compare(
            "dpo, reference precomputed", 1.3, lambda: dpo(context, tokenizer, precomputed=True),
            lambda: dpo(context, tokenizer, precomputed=False), "at every step",
        )  # fmt: skip
        drawn = context_for("sample", Path(folder) / "sample", pipeline="on-policy")
        few = drawn.settings.model_copy(update={"generated_tokens": 16384, "samples": 4, "answer_tokens": 32})
        drawn = dataclasses.replace(drawn, settings=few)
        compare(
            "sampling, prompts by length", 1.0, lambda: sampling(drawn, tokenizer, alike=True),
            lambda: sampling(drawn, tokenizer, alike=False), "in their order", unit="answers/s",
        )  # fmt: skip
