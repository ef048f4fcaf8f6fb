"""CPT and SFT training against a plain loop over the same model, batch and rows, and stock SFTTrainer beside them.

The plain loop has no trainer: same optimizer, precision, clipping and isolated rows. Each measurement is of the
loop alone, after warm-up steps, alternating over several rounds; tokens count padding, the same for all.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from common.console import Console
from common.layers import resolve
from common.libraries import prepare
from common.plan import open_corpus
from common.stages import StageContext
from tests.conftest import REPOSITORY

STEPS, WARMUP, ROUNDS = 40, 5, 3


def context_for(stage: str, folder: Path) -> StageContext:
    resolved = resolve({"domain": "medical"}, REPOSITORY)
    prepare(resolved.config.run, asks_hub=False)
    for name in ("out", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return StageContext(
        stage, stage, resolved.config.stages[stage], resolved.config, {}, None, open_corpus(resolved),
        folder / "out", folder / "work", folder / "models", Console("quiet"),
    )  # fmt: skip


def fresh_model(context: StageContext, tokenizer: Any) -> Any:
    from common.stages.base import initialise

    return initialise(context, tokenizer)


def plain_loop(context: StageContext, tokenizer: Any, dataset: Any) -> float:
    """Return tokens per second of a loop with nothing but forward, backward, clipping and AdamW."""
    import torch
    from torch.nn.functional import cross_entropy

    from common.training.packing import RowCollator

    settings: Any = context.settings
    model = fresh_model(context, tokenizer).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    collate = RowCollator(tokenizer.pad_token_id, settings.sequence_length)
    size = settings.batch_tokens // settings.sequence_length
    started = 0.0
    for step in range(WARMUP + STEPS):
        if step == WARMUP:
            started = time.perf_counter()
        rows = dataset[step * size : (step + 1) * size]
        batch = collate([{key: rows[key][i] for key in rows} for i in range(size)])
        labels = batch.pop("labels")
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(**batch, use_cache=False).logits
            loss = cross_entropy(logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    tokens: int = STEPS * settings.batch_tokens
    return tokens / (time.perf_counter() - started)


def seconds_of(trainer: Any) -> float:
    """Train; return the seconds from the last warm-up step to the last step."""
    from transformers import TrainerCallback
    from transformers.trainer_callback import PrinterCallback

    class Clock(TrainerCallback):  # type: ignore[misc] # transformers is seen as Any
        started = ended = 0.0

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.ended = time.perf_counter()
            if state.global_step == WARMUP:
                self.started = self.ended

    clock = Clock()
    trainer.add_callback(clock)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return clock.ended - clock.started


def timed_trainer(trainer: Any, tokens_per_step: int) -> float:
    """Return tokens per second of a trainer's steps after the warm-up ones."""
    return STEPS * tokens_per_step / seconds_of(trainer)


def ours(context: StageContext, tokenizer: Any, dataset: Any) -> float:
    from trl import SFTConfig

    from common.training.options import sft_options
    from common.training.packing import RowCollator
    from common.training.trainer import lean_sft_trainer

    settings: Any = context.settings
    options = sft_options(
        settings, context.config.run, context.work / "trainer", steps=WARMUP + STEPS, seed=0, device="cpu", stage="cpt"
    )
    trainer = lean_sft_trainer()(
        model=fresh_model(context, tokenizer), args=SFTConfig(**options), train_dataset=dataset,
        processing_class=tokenizer, data_collator=RowCollator(tokenizer.pad_token_id, settings.sequence_length),
    )  # fmt: skip
    return timed_trainer(trainer, settings.batch_tokens)


def stock(context: StageContext, tokenizer: Any, texts: list[str], strategy: str) -> float:
    """Return tokens per second of TRL's SFTTrainer with its own packing; wrapped does not isolate documents."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    settings: Any = context.settings
    arguments = SFTConfig(
        output_dir=str(context.work / "stock"), max_steps=WARMUP + STEPS, packing=True, packing_strategy=strategy,
        max_length=settings.sequence_length,
        per_device_train_batch_size=settings.batch_tokens // settings.sequence_length,
        use_cpu=True, bf16=True, gradient_checkpointing=False, report_to="none", disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    trainer = SFTTrainer(
        model=fresh_model(context, tokenizer), args=arguments, processing_class=tokenizer,
        train_dataset=Dataset.from_list([{"text": text} for text in texts]),
    )  # fmt: skip
    return timed_trainer(trainer, settings.batch_tokens)


def main() -> None:
    from common.stages.base import make_tokenizer
    from common.training.rows import build_rows

    for stage in ("cpt", "sft"):
        with tempfile.TemporaryDirectory() as folder:
            context = context_for(stage, Path(folder))
            tokenizer = make_tokenizer(context)
            rows = build_rows(context, tokenizer, role=stage, assistant_only=stage == "sft")
            texts = [row["text"] for row in context.corpus.rows("cpt")]
            found: dict[str, list[float]] = {"plain loop": [], "ours": []}
            for _ in range(ROUNDS):
                found["plain loop"].append(plain_loop(context, tokenizer, rows.dataset))
                found["ours"].append(ours(context, tokenizer, rows.dataset))
            if stage == "cpt":
                for strategy in ("wrapped", "bfd"):
                    found[f"stock SFTTrainer, {strategy}"] = [stock(context, tokenizer, texts, strategy)]
            base = statistics.median(found["plain loop"])
            for name, speeds in found.items():
                speed = statistics.median(speeds)
                mark = ("ok  " if speed / base >= 0.9 else "MISS") if name == "ours" else "    "
                print(f"  {mark} {stage}  {name:<26} {speed:8,.0f} tokens/s  {speed / base:.2f} x plain loop")
