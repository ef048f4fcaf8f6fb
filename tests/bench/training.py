"""CPT, SFT and DPO of our stages against a plain loop over the same model and batches, and stock TRL beside them.

The plain loop has no trainer: same optimizer, precision, clipping and isolated rows, attention as transformers sets
it. Stock TRL packs the same documents into the same number of tokens a step, by best fit (documents apart, as ours)
and wrapped (documents mixed). On a CPU the tiny model trains on medical rows, and loops take turns, step by step: with
the batches of its profile, and CPT also with 16 rows of 128 tokens, since what stock TRL loses to one dense mask over
a step grows with the square of its tokens, and the profile's steps of 512 are small. On a GPU models of 0.6 and 1.7
billion random weights train on random tokens in rows of 4,096, each loop by itself. Utilisation is the share of the
matrix rate that is measured in the same run. Tokens count padding in CPT and SFT, as for all.
Progress, the guard and checkpoints, which a stage has beside, are left out for all.
"""

from __future__ import annotations

import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.training.rows.preferences import Pair
from tests.bench.material import Material, material, models_here
from tests.bench.turns import Done, Way, alone, clock_here, in_turns, ratio, train_in_turns

STEPS, WARMUP = 40, 8
OURS, PLAIN, BFD, WRAPPED = "ours", "plain loop", "stock TRL, bfd", "stock TRL, wrapped"
STOCK = "stock TRL"


def plain_tokens(case: Case, done: Done) -> None:
    """Forward, backward, clipping and AdamW over packed rows, and nothing else."""
    import torch
    from torch.nn.functional import cross_entropy

    from common.training.rows.packing import RowCollator

    m = case.material()
    model = m.model().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    collate = RowCollator(m.pad_id, m.length)
    for step in range(case.steps):
        rows = m.rows[step * m.rows_per_step : (step + 1) * m.rows_per_step]
        number = sum(label != -100 for labels in rows["labels"] for label in labels)
        for start in range(0, m.rows_per_step, m.micro_rows):
            piece = range(start, min(start + m.micro_rows, m.rows_per_step))
            batch = {
                k: v.to(m.device) for k, v in collate([{key: rows[key][i] for key in rows} for i in piece]).items()
            }
            labels = batch.pop("labels")
            with torch.autocast(m.device, getattr(torch, m.precision), enabled=m.precision != "float32"):
                logits = model(**batch, use_cache=False).logits
                total = cross_entropy(
                    logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), reduction="sum"
                )  # fmt: skip
            (total / number).backward()
        _update(model, optimizer)
        done()


def _update(model: Any, optimizer: Any) -> None:
    import torch

    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def our_tokens(case: Case, done: Done) -> None:
    from common.training.fit import trainer_for
    from common.training.loop.trainer import optimized_for
    from common.training.rows.rows import TrainingRows

    m = case.material()
    trainer = trainer_for(m.context, m.model(), m.tokenizer, TrainingRows(m.rows, case.steps, []), case.folder / "ours")
    with optimized_for(trainer, m.context.config.run, case.stage):
        train_in_turns(trainer, done)


def stock_tokens(strategy: str, case: Case, done: Done) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from common.training.adapters import adapter_for

    m = case.material()
    model = m.model()
    arguments = SFTConfig(
        output_dir=str(case.folder / "stock"), max_steps=case.steps, packing=True, packing_strategy=strategy,
        max_length=m.length, per_device_train_batch_size=m.micro_rows,
        gradient_accumulation_steps=m.rows_per_step // m.micro_rows, use_cpu=m.device == "cpu",
        bf16=m.precision == "bfloat16", fp16=m.precision == "float16",
        gradient_checkpointing=False, report_to="none", disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    documents = Dataset.from_list([{"input_ids": ids, "labels": labels} for ids, labels in m.documents])
    trainer = SFTTrainer(
        model=model, args=arguments, processing_class=m.tokenizer, train_dataset=documents,
        peft_config=adapter_for(m.context, model),
    )  # fmt: skip
    train_in_turns(trainer, done)


def plain_pairs(case: Case, done: Done) -> None:
    """The sigmoid loss over padded pairs, whose reference is known, and nothing else."""
    import torch
    from torch.nn.functional import logsigmoid
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    m = case.material()
    model = m.model().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    collate = DataCollatorForPreference(pad_token_id=m.pad_id)
    for step in range(case.steps):
        for start in range(0, m.pairs_per_step, m.micro_pairs):
            first = step * m.pairs_per_step + start
            rows = [_ids_of(pair) for pair in m.pairs[first : first + m.micro_pairs]]
            batch = {k: v.to(m.device) for k, v in collate(rows).items()}
            with torch.autocast(m.device, getattr(torch, m.precision), enabled=m.precision != "float32"):
                given = {key: batch[key] for key in ("input_ids", "attention_mask")}
                logits = model(**given, use_cache=False).logits[:, :-1].float()
            logps = torch.log_softmax(logits, -1).gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
            chosen, rejected = (logps * batch["completion_mask"][:, 1:]).sum(-1).chunk(2)
            margin = (chosen - batch["ref_chosen_logps"]) - (rejected - batch["ref_rejected_logps"])
            (-logsigmoid(0.1 * margin).mean() * m.micro_pairs / m.pairs_per_step).backward()
        _update(model, optimizer)
        done()


def _ids_of(pair: Pair) -> dict[str, Any]:
    """Return a pair as TRL's collator takes it, beside what a reference may have said."""
    return {**pair.columns, "ref_chosen_logps": -20.0, "ref_rejected_logps": -20.0}


def trl_pairs(ours: bool, case: Case, done: Done) -> None:
    from contextlib import nullcontext

    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from common.training.loop.trainer import optimized_for
    from common.training.patches import token_dpo_trainer
    from common.training.speed.scoring import scoring

    m = case.material()
    arguments = DPOConfig(
        output_dir=str(case.folder / "dpo"), max_steps=case.steps, precompute_ref_log_probs=True,
        max_length=m.length, per_device_train_batch_size=m.micro_pairs,
        gradient_accumulation_steps=m.pairs_per_step // m.micro_pairs, use_cpu=m.device == "cpu",
        bf16=m.precision == "bfloat16", fp16=m.precision == "float16",
        gradient_checkpointing=False, report_to="none", disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    pairs = Dataset.from_list(
        [pair.columns if ours else {key: pair.row[key] for key in ("prompt", "chosen", "rejected")} for pair in m.pairs]
    )
    run = m.context.config.run
    with scoring(run, {}) if ours else nullcontext():
        trainer = (token_dpo_trainer() if ours else DPOTrainer)(
            model=m.model(), args=arguments, processing_class=m.tokenizer, train_dataset=pairs
        )
    with optimized_for(trainer, run, case.stage) if ours else nullcontext():
        train_in_turns(trainer, done)


@dataclass(frozen=True)
class Case:
    """One stage of one model: what a loop in a process of its own needs to know."""

    model: str
    stage: str
    folder: Path
    steps: int
    words: tuple[tuple[str, str], ...] = ()  # settings, as on the command line
    shape: str = ""  # of its batches, where they are not those of the profile

    def material(self) -> Material:
        return material(self.model, self.stage, self.folder, self.steps, dict(self.words))


LOOPS: dict[str, dict[str, Callable[[Case, Done], None]]] = {
    **{
        stage: {
            OURS: our_tokens, PLAIN: plain_tokens, BFD: functools.partial(stock_tokens, "bfd"),
            WRAPPED: functools.partial(stock_tokens, "wrapped"),
        }
        for stage in ("cpt", "sft")
    },
    "dpo": {OURS: functools.partial(trl_pairs, True), PLAIN: plain_pairs, STOCK: functools.partial(trl_pairs, False)},
}  # fmt: skip
SIXTEEN_ROWS = {
    stage: ((f"{stage}.batch_tokens", "2048"), (f"{stage}.sequence_length", "128")) for stage in ("cpt", "sft")
}
SHAPES: dict[str, list[tuple[str, str, tuple[tuple[str, str], ...]]]] = {
    "cpu": [
        ("cpt", "", ()), ("cpt", "16 x 128", SIXTEEN_ROWS["cpt"]), ("sft", "", ()),
        ("sft", "16 x 128", SIXTEEN_ROWS["sft"]), ("dpo", "", ()), ("dpo", "40 pairs", (("dpo.batch_pairs", "40"),)),
    ],
    "cuda": [("cpt", "", ()), ("sft", "", ()), ("dpo", "", ())],
}  # fmt: skip
# Against stock TRL: documents apart, as ours. On a GPU the goals are others.
FLOORS = {
    "cpu": {PLAIN: 1.1, BFD: 1.7, STOCK: 1.7},
    "cpu, large steps": {PLAIN: 1.1, BFD: 2.5, STOCK: 2.5},
    "cuda": {BFD: 1.3, STOCK: 1.3},
}
LARGE_STEP = 2000  # tokens, of pairs on average
GOAL_OF_MATRIX_RATE = 0.55  # CPT of 1.7 billion weights on a GPU
RATE_SECONDS, RATE_REPEATS = 2.0, 6
LARGEST = {"cpu": 2048, "cuda": 8192}  # sizes of a product


@functools.cache
def matrix_rate(device: str, dtype: str) -> float:
    """Return the FLOP/s of matrix products in a type: the best seen, over sizes that grow while they take little time.

    A product is started only where it should end within `RATE_SECONDS`, so a type that is emulated takes no longer.
    """
    import torch

    size, best, started = 256, 0.0, time.perf_counter()
    clock = clock_here()
    while True:
        a, b = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2))
        for _ in range(RATE_REPEATS):
            before = clock()
            a @ b
            best = max(best, 2 * size**3 / (clock() - before))
        size *= 2
        expected = RATE_REPEATS * 2 * size**3 / best
        if size > LARGEST[device] or time.perf_counter() - started + expected > RATE_SECONDS:
            print(f"  matrix products in {dtype}: {best / 1e12:.3f} TFLOP/s", flush=True)
            return best


@dataclass(frozen=True)
class Speed:
    """How fast one loop of a case is."""

    tokens_per_second: float
    share: float  # of the matrix rate
    ratio: float  # how many times as fast ours is


def speeds(case: Case, way: Way, *, warmup: int, leave_out: Collection[str] = ()) -> dict[str, Speed]:
    """Time the loops of a stage in a way (`in_turns`, `alone`, `here`)."""
    m = case.material()
    rate = matrix_rate(m.device, m.precision)
    loops = {n: functools.partial(loop, case) for n, loop in LOOPS[case.stage].items() if n not in leave_out}
    seconds = way(loops, warmup=warmup)
    found = {name: m.tokens_per_step / statistics.median(times) for name, times in seconds.items()}
    return {
        name: Speed(speed, speed * m.flops_per_token / rate, ratio(seconds, OURS, name))
        for name, speed in found.items()
    }


def compare(case: Case) -> int:
    """Time all loops of a stage; print tokens per second, utilisation and ratios; return how many floors are missed."""
    m = case.material()
    found = speeds(case, in_turns if m.device == "cpu" else alone, warmup=WARMUP)
    large = m.device == "cpu" and m.tokens_per_step >= LARGE_STEP
    floors = FLOORS["cpu, large steps" if large else m.device]
    missed = 0
    label = f"{case.model} {case.stage} {case.shape}".rstrip()
    for name, speed in found.items():
        times = "" if name == OURS else f"  ours is {speed.ratio:.2f} x"
        least = floors.get(name)
        if name == OURS and m.device == "cuda" and case.stage == "cpt" and "1.7" in case.model:
            missed += _mark(speed.share >= GOAL_OF_MATRIX_RATE)
        mark = "    "
        if least is not None:
            held = speed.ratio >= least
            mark, times = ("ok  " if held else "MISS"), f"{times} (>= {least})"
            missed += not held
        figures = f"{speed.tokens_per_second:9,.0f} tokens/s  {speed.share:5.1%} of the matrix rate"
        print(f"  {mark} {label:<17}  {name:<20} {figures}{times}", flush=True)
    return missed


def _mark(held: bool) -> int:
    if not held:
        print(f"  MISS utilisation below {GOAL_OF_MATRIX_RATE:.0%} of the matrix rate")
    return int(not held)


def main() -> int:
    import torch

    from common.engine.provenance import hardware
    from common.machine import cpu_kind

    device, models = models_here()
    here = f"{hardware()['cpu']}, {cpu_kind()}, {torch.get_num_threads()} threads"
    print(f"  {torch.cuda.get_device_name() if device == 'cuda' else here}")
    missed = 0
    for model in models:
        for stage, shape, words in SHAPES[device]:
            with tempfile.TemporaryDirectory() as folder:
                missed += compare(Case(model, stage, Path(folder), WARMUP + STEPS, words, shape))
    return missed
