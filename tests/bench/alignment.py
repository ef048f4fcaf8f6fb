"""GRPO and RLOO against a stock TRL script with the same settings, DPO with and without a precomputed reference, and
sampling with prompts of like length in a batch or in their own order.

Training loops take turns, step by step, after warm-up steps. All start from the same fresh tiny model over the medical
domain's prompts and pairs, sampling from prompts of 5 to 400 tokens; an untrained model never stops, so every answer is
as long as it may be and all do the same work.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.data.answers import normalise_text
from common.data.decontaminate import Decontaminator
from common.rewards.mix import Mix
from common.stage import StageContext
from tests.bench.material import context_for, save_random
from tests.bench.turns import Done, Loop, in_turns, ratio, train_in_turns

WARMUP, STEPS, ROUNDS = 5, 8, 3
NUM_PROMPTS = 120


def saved_model(context: StageContext, tokenizer: Any, model: str = "tiny") -> Any:
    """Return a fresh model that lies in a folder: TRL loads the reference of GRPO and RLOO from there."""
    import torch
    from transformers import AutoModelForCausalLM

    from common.stages.base import initialise

    folder = context.work / "model"
    if model != "tiny":
        save_random(model, folder)
    elif not folder.exists():
        initialise(context, tokenizer).save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def rewarded(
    name: str, folder: Path, ours: bool, done: Done, *, model: str = "tiny", steps: int = WARMUP + STEPS,
    device: str = "auto",
) -> None:  # fmt: skip
    """Train with GRPO or RLOO: our reward, scoring and callback, or TRL's with a plain function.

    The watch is left out on our side: it is paid per look, and a plain script looks at nothing.
    """
    import trl
    from datasets import Dataset

    from common.stages.base import make_tokenizer
    from common.stages.rewarded import Reward, row_column
    from common.training.loop.trainer import optimized_for
    from common.training.options import rewarded_options
    from common.training.own_answers import skipper
    from common.training.rows.prompts import read_prompts
    from common.training.speed.scoring import scoring

    context = context_for(name, folder, **{"pipeline": name, "run.device": device})
    tokenizer = make_tokenizer(context)
    settings: Any = context.settings
    rows, _ = read_prompts(context, tokenizer)
    few = settings.model_copy(update={"steps": steps, "answer_tokens": 32})
    options = rewarded_options(few, context.config, context.work / "trainer", num_prompts=len(rows), stage=name)
    mix = Mix.of({"exact": {"weight": 1.0}})
    reward: Any = plain_reward
    if ours:
        reward = Reward(mix, tokenizer.eos_token_id, settings.samples, Decontaminator([]), folder)
    with scoring(context.config.run, settings.train) if ours else contextlib.nullcontext():
        trainer = getattr(trl, f"{name.upper()}Trainer")(
            model=saved_model(context, tokenizer, model),
            reward_funcs=reward,
            args=getattr(trl, f"{name.upper()}Config")(**options),
            train_dataset=Dataset.from_list([{"prompt": row["prompt"], "row": row_column(row)} for row in rows]),
            processing_class=tokenizer,
        )
    if ours:
        trainer.add_callback(skipper(reward))
    with optimized_for(trainer, context.config.run, name) if ours else contextlib.nullcontext():
        train_in_turns(trainer, done)


def plain_reward(completions: list[Any], row: list[str], **_: Any) -> list[float]:
    """What a script of its own would say for the same reward: are these the right words?"""
    rights = [json.loads(known)["answer"] for known in row]
    return [
        float(normalise_text(messages[0]["content"]) == normalise_text(right))
        for messages, right in zip(completions, rights, strict=True)
    ]


def dpo(folder: Path, precomputed: bool, ours: bool, done: Done) -> None:
    """Train with DPOTrainer over our options, its reference computed in advance or at every step."""
    import copy

    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from common.stages.base import make_tokenizer
    from common.training.loop.trainer import optimized_for
    from common.training.options import preference_options
    from common.training.rows.preferences import read_pairs
    from common.training.speed.scoring import scoring

    context = context_for("dpo", folder)
    tokenizer = make_tokenizer(context)
    settings: Any = context.settings
    pairs, _ = read_pairs(context, tokenizer, "preference")
    model = saved_model(context, tokenizer)
    options = preference_options(settings, context.config, context.work / "trainer", num_pairs=len(pairs), stage="dpo")
    steps = min(4 * (WARMUP + STEPS), len(pairs) // settings.batch_pairs)
    options |= {"max_steps": steps, "precompute_ref_log_probs": precomputed}
    with scoring(context.config.run, settings.train) if ours else contextlib.nullcontext():
        trainer = DPOTrainer(
            model=model,
            ref_model=None if precomputed else copy.deepcopy(model),
            args=DPOConfig(**options),
            train_dataset=Dataset.from_list([{k: p.row[k] for k in ("prompt", "chosen", "rejected")} for p in pairs]),
            processing_class=tokenizer,
        )
    with optimized_for(trainer, context.config.run, "dpo") if ours else contextlib.nullcontext():
        train_in_turns(trainer, done)


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


def compare(title: str, floors: Mapping[str, float], loops: Mapping[str, Loop]) -> int:
    """Let loops take turns; print the first one's speed beside the others', and return how many ratios are missed."""
    seconds = in_turns(loops, warmup=WARMUP)
    ours, *others = loops
    missed = 0
    for other in others:
        found, least = ratio(seconds, ours, other), floors.get(other)
        mark = "    " if least is None else "ok  " if found >= least else "MISS"
        missed += mark == "MISS"
        speeds = [1 / statistics.median(seconds[name]) for name in (ours, other)]
        floor = f" (>= {least})" if least is not None else ""
        print(
            f"  {mark} {title:<26} {speeds[0]:6.2f} steps/s, {other} {speeds[1]:6.2f}: {found:.2f} x{floor}", flush=True
        )
    return missed


def main() -> int:
    from common.stages.base import make_tokenizer

    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in ("grpo", "rloo"):
            both = {
                kind: functools.partial(rewarded, name, Path(folder) / name, kind == "ours")
                for kind in ("ours", "stock TRL")
            }
            missed += compare(name, {"stock TRL": 1.0}, both)
        kinds = {"ours": (True, True), "ours without": (False, True), "stock with": (True, False)}
        kinds["stock without"] = (False, False)
        loops = {name: functools.partial(dpo, Path(folder) / "dpo", *kind) for name, kind in kinds.items()}
        missed += compare("dpo, precomputed reference", {"ours without": 1.3, "stock without": 1.3}, loops)
        drawn = context_for("sample", Path(folder) / "sample", pipeline="on-policy")
        tokenizer = make_tokenizer(drawn)
        few = drawn.settings.model_copy(update={"generated_tokens": 16384, "samples": 4, "answer_tokens": 32})
        drawn = dataclasses.replace(drawn, settings=few)
        speeds = {alike: [sampling(drawn, tokenizer, alike=alike) for _ in range(ROUNDS)] for alike in (True, False)}
        first, second = (statistics.median(speeds[alike]) for alike in (True, False))
        missed += first < second
        print(
            f"  {'ok  ' if first >= second else 'MISS'} sampling, prompts by length {first:5.0f} answers/s, "
            f"in their order {second:5.0f}: {first / second:.2f} x (>= 1.0)"
        )
    return missed
