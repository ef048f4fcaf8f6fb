"""What the stages that learn from pairs share: reading them, measuring the held-out ones, and handing on.

Usage: `return tune(context, train)`; `train(context, model, tokenizer, pairs, heldout)` runs one of TRL's trainers.

The held-out pairs never train. With a reference, a pair counts as right when training has raised the chosen answer's
log-probability more than the rejected one's: the implicit reward of DPO (Rafailov et al. 2023, arXiv 2305.18290,
section 4), with the stage before as the reference. Without one, as for ORPO, it does when the chosen answer has the
better odds: the likelihood per token, which a model can rank well before any tuning, so that is told too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from common.config.schema import RunSettings
from common.config.stages import PreferenceSettings
from common.data.accounting import check_limits
from common.errors import ConfigError, DataError
from common.evaluation.statistics import wilson
from common.models import checkpoint
from common.models.device import device_of, to_device
from common.stage import StageContext, StageReport
from common.store.artifacts import write_json
from common.training import patches
from common.training.distributed import parallel, ranks
from common.training.distributed.loading import load_shared
from common.training.fit import TrainResult, check_and_save, merge_adapter, trained_model
from common.training.loop.trainer import TrainingLoop
from common.training.options import preference_options
from common.training.rows.preferences import Pair, accuracy, answer_logps, ranked_first, read_pairs
from common.training.rows.reader import origin

NUM_CHECKED = 16  # pairs whose reference log-probabilities are computed a second time
NUM_CHECKED_SHARDED = 2  # of them, the shortest, where the first process does so on the CPU and the others wait
Logps = tuple[list[float], list[float]]
Train = Callable[[StageContext, Any, Any, list[Pair], "HeldOut"], TrainResult]


@dataclass
class HeldOut:
    """Pairs that never train, and how likely the model found their sides before and after it learned."""

    context: StageContext
    pairs: list[Pair]
    pad_id: int
    before: Logps = ([], [])
    after: Logps = ([], [])

    def measure(self, model: Any) -> Logps:
        return answer_logps(model, self.pairs, self.pad_id)

    def watch(self, trainer: Any) -> None:
        """Let all processes measure while the model is spread over them, where none of them can hold it whole."""
        from transformers import TrainerCallback

        heldout, path = self, self.context.work / "heldout.json"

        class Measure(TrainerCallback):  # type: ignore[misc] # transformers is seen as Any
            def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                if state.global_step == 0:
                    heldout.before = heldout.measure(trainer.model_wrapped)
                    if ranks.is_main_process():
                        write_json(path, heldout.before)
                else:
                    chosen, rejected = json.loads(path.read_text(encoding="utf-8"))
                    heldout.before = (chosen, rejected)

            def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                heldout.after = heldout.measure(trainer.model_wrapped)

        trainer.add_callback(Measure())

    def facts(self, *, referenced: bool) -> dict[str, Any]:
        """Return how many pairs are right, with a 95% interval."""
        pairs, after, before = self.pairs, self.after, self.before
        right = accuracy(after, before) if referenced else ranked_first(after, pairs)
        low, high = wilson(right, len(pairs))
        return {
            "score": round(right / len(pairs), 4), "n": len(pairs), "low": round(low, 4), "high": round(high, 4),
            **({} if referenced else {"before": round(ranked_first(before, pairs) / len(pairs), 4)}),
        }  # fmt: skip


def tune(context: StageContext, train: Train, *, referenced: bool = True) -> StageReport:
    """Return the report of a stage that continues from its parent with `train`, once its result is saved.

    `referenced` says whether the method compares with the stage before.
    """
    settings, run = cast(PreferenceSettings, context.settings), context.config.run
    folder = context.parent_artifact.path
    tokenizer = checkpoint.load_tokenizer(folder, context.config.model)
    model = load_shared(folder, context.config.model, run)
    pairs, counts = read_pairs(context, tokenizer, "preference")
    heldout_pairs, heldout_counts = read_pairs(context, tokenizer, "preference_heldout")
    check_limits(counts, settings.limits, context.stage)
    require_pairs(len(pairs), ranks.size(), f"Stage {context.stage}: {origin(context, 'preference')}")
    heldout = HeldOut(context, heldout_pairs, tokenizer.pad_token_id)
    whole_here = not parallel.is_sharded(run)
    if whole_here:
        model.to(device_of(run))
        if ranks.is_main_process():
            heldout.before = heldout.measure(model)

    trained = merge_adapter(context, train(context, model, tokenizer, pairs, heldout), pairs[0].chosen_ids)

    metrics: dict[str, Any] = {"steps": trained.steps, "pairs": len(pairs)}
    if trained.log:
        metrics["final_loss"] = trained.log[-1]["loss"]
    if heldout_pairs and ranks.is_main_process():
        if whole_here:
            heldout.after = heldout.measure(to_device(trained.model, run))
        metrics["preference_accuracy"] = heldout.facts(referenced=referenced)
    parent_tokenizer = checkpoint.load_tokenizer(context.parent_artifact.path, context.config.model)
    measured = check_and_save(context, trained, tokenizer, probe=pairs[0].chosen_ids, parent_tokenizer=parent_tokenizer)
    return StageReport(
        metrics={**metrics, **measured},
        tokens=trained.tokens,
        train_seconds=trained.seconds,
        rows=[count.as_dict() for count in (*counts, *heldout_counts)],
        sources=context.corpus.sources(),
    )


def require_pairs(num_pairs: int, processes: int, place: str) -> None:
    """Check that there is a pair for every process. Raises DataError that begins with `place`."""
    if num_pairs >= processes:
        return
    few = f"{num_pairs} usable pairs for {processes} processes" if num_pairs else "no usable pair"
    more = "Add pairs or start fewer processes (run.processes)" if num_pairs else "Check where it comes from"
    raise DataError(f"{place} has {few}. {more}.")


def checked_pairs(pairs: Sequence[Pair], run: RunSettings) -> list[int]:
    """Return the places of the pairs whose reference log-probabilities the first process computes a second time."""
    if not ranks.is_main_process():
        return []
    if not parallel.is_sharded(run):
        return list(range(min(NUM_CHECKED, len(pairs))))
    return sorted(range(len(pairs)), key=lambda place: _length(pairs[place]))[:NUM_CHECKED_SHARDED]


def _length(pair: Pair) -> int:
    return len(pair.chosen_ids) + len(pair.rejected_ids)


def loop_for(context: StageContext, pairs: list[Pair]) -> TrainingLoop:
    """Return the loop of a trainer whose steps read `batch_pairs` pairs, both sides of each."""
    settings = cast(PreferenceSettings, context.settings)
    mean_tokens = sum(map(_length, pairs)) / len(pairs)
    return TrainingLoop(context, round(settings.batch_pairs * mean_tokens))


def arguments_for(
    config_class: Any, context: StageContext, loop: TrainingLoop, *, num_pairs: int, defaults: Mapping[str, Any],
    rows_per_pair: int = 1,
) -> Any:  # fmt: skip
    """Build the trainer's configuration; `defaults` hold where settings say nothing. Raises ConfigError."""
    settings = cast(PreferenceSettings, context.settings)
    options = preference_options(
        settings, context.config.run, loop.folder, num_pairs=num_pairs, seed=context.config.seed,
        device=device_of(context.config.run), stage=context.stage, rows_per_pair=rows_per_pair,
    )  # fmt: skip
    try:
        return patches.use_one_gpu(config_class(**{**defaults, **options}))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{context.stage}.train: TRL refuses these options: {error}") from error


def dataset_of(context: StageContext, rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return rows as a data set in the stage's scratch, where all processes find what TRL's trainers make of it."""
    from datasets import Dataset
    from datasets.arrow_writer import ArrowWriter
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    path = context.work / "pairs" / "pairs.arrow"
    if ranks.is_main_process() and not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".fresh")
        with ArrowWriter(path=str(fresh)) as writer:
            for row in rows:
                writer.write(dict(row))
            writer.finalize()
        fresh.replace(path)
    ranks.barrier()
    return Dataset.from_file(str(path))


def finish(trainer: Any, loop: TrainingLoop, heldout: HeldOut, parent: Any = None) -> TrainResult:
    """Train to the end; return the model as it was before accelerate wrapped it.

    Where the learner is a quantised copy of `parent`, that one is done by now and leaves the GPU to the training.
    """
    if parent is not None and cast(PreferenceSettings, loop.context.settings).quantization is not None:
        parent.to("cpu")
    if heldout.pairs and parallel.is_sharded(loop.context.config.run):
        heldout.watch(trainer)
    log = loop.run(trainer)
    model = trained_model(loop.context, trainer)
    return TrainResult(model, log, loop.steps, loop.seconds, loop.steps * loop.tokens_per_step, loop.measured())


def needs_precomputed(context: StageContext, arguments: Any) -> None:
    """Refuse a reference that is computed anew at every step. Raises ConfigError."""
    if not arguments.precompute_ref_log_probs:
        raise ConfigError(
            f"{context.stage}.train.precompute_ref_log_probs=false: the reference is always precomputed here."
        )
