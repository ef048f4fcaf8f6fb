"""What the stages that learn from pairs share: reading them, running a trainer of TRL, and measuring held-out pairs.

Usage: `tuning = Tuning(context)`, `trainer = tuning.trainer_of_parent(...)`, `tuning.save(tuning.train(trainer))`.

The held-out pairs never train. With a reference, a pair counts as right when training has raised the chosen answer's
log-probability more than the rejected one's: the implicit reward of DPO (Rafailov et al. 2023, arXiv 2305.18290,
section 4), with the stage before as the reference. Without one, as for ORPO, a pair is right when the chosen answer has
the better odds, by its likelihood per token. A model may rank pairs well by that before any tuning, so the figure from
before is reported too.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from common.config.batches import pair_epochs, pair_steps
from common.config.json import as_written, read_json
from common.config.node import Node
from common.config.schema import RunSettings
from common.config.stages import PreferenceSettings
from common.data.accounting import check_limits
from common.errors import ConfigError, DataError
from common.evaluation.statistics import wilson
from common.models import checkpoint
from common.models.device import device_of, to_device
from common.models.finite import require_finite
from common.stage import StageContext, StageReport
from common.store.artifacts import flush, write_json
from common.training.adapters import learner_of, reference_of
from common.training.callbacks import callback
from common.training.distributed import parallel, ranks
from common.training.distributed.loading import load_shared
from common.training.fit import TrainResult, build_trainer, check_and_save, merge_adapter, report, trained_model
from common.training.loop import memory
from common.training.loop.trainer import TrainingLoop
from common.training.options import preference_options
from common.training.patches import shard_references_by_layer
from common.training.rows.preferences import (
    Pair,
    Preference,
    Single,
    accuracy,
    logps_of,
    on_their_side,
    ranked_first,
    read_pairs,
    read_preferences,
)
from common.training.rows.reader import origin
from common.training.speed.scoring import scoring

END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"  # of Arrow's format for streams
NUM_CHECKED = 16  # pairs whose reference log-probabilities are computed a second time
NUM_CHECKED_SHARDED = 2  # of them, the shortest, where the first process computes on the CPU and the others wait


class PairTraining:
    """The training of one stage on pairs: builds one of TRL's trainers and runs it."""

    def __init__(self, context: StageContext, tokenizer: Any, pairs: Sequence[Preference]) -> None:
        """Two single answers are as much as a pair: `num_pairs` counts both."""
        self.context, self.tokenizer, self.pairs = context, tokenizer, list(pairs)
        self.num_pairs = sum(len(pair.sides) for pair in pairs) / 2
        self.settings, self.run = cast(PreferenceSettings, context.settings), context.config.run
        mean_tokens = sum(pair.num_tokens for pair in pairs) / self.num_pairs
        self.loop = TrainingLoop(context, round(self.settings.batch_pairs * mean_tokens))

    def trainer(
        self, trainer_class: Any, config_class: Any, learner: Any, rows: Sequence[Mapping[str, Any]], *,
        rows_per_pair: int = 1, task: str = "CAUSAL_LM", derived: Mapping[str, Any] | None = None, **more: Any,
    ) -> Any:  # fmt: skip
        """Return TRL's trainer over `rows`, `rows_per_pair` for each pair. Raises ConfigError for its options.

        `derived` are options that follow from the rows; those of the user replace them.
        """
        context = self.context
        options = dict(derived or {}) | preference_options(
            self.settings, context.config, self.loop.folder, num_pairs=self.num_pairs, stage=context.stage,
            rows_per_pair=rows_per_pair,
        )  # fmt: skip
        return build_trainer(
            context, trainer_class, config_class, options, learner, _dataset_of(context, rows),
            self.tokenizer, task=task, **more,
        )  # fmt: skip

    def train(self, trainer: Any) -> TrainResult:
        """Train to the end; return the model as it was before accelerate wrapped it."""
        loop = self.loop
        log = loop.run(trainer)
        model = trained_model(self.context, trainer)
        return TrainResult(model, log, loop.steps, loop.seconds, loop.steps * loop.tokens_per_step, loop.measured())


class Tuning(PairTraining):
    """The training of one stage that tunes its parent, measured on pairs that never train.

    `before` and `after` are the log-probabilities of their answers, one after another, before and after training.
    """

    before: Sequence[float] = ()
    after: Sequence[float] = ()

    def __init__(self, context: StageContext, *, referenced: bool = True, singles: bool = False) -> None:
        """Read the pairs and the parent, and measure it. Raises DataError where there are too few pairs.

        `referenced` says whether the method compares with the parent, `singles` whether it takes answers without a
        pair.
        """
        read = read_preferences if singles else read_pairs
        folder, run = context.parent_artifact.path, context.config.run
        tokenizer = checkpoint.load_tokenizer(folder, context.config.model)
        self.parent = load_shared(folder, context.config.model, run)
        pairs, counts = read(context, tokenizer, "preference")
        heldout, heldout_counts = read(context, tokenizer, "preference_heldout")
        self.heldout = sorted(heldout, key=lambda one: isinstance(one, Single))  # pairs come first
        check_limits(counts, cast(PreferenceSettings, context.settings).limits, context.stage)
        require_pairs(len(pairs), ranks.size(), f"Stage {context.stage}: {origin(context, 'preference')}")
        super().__init__(context, tokenizer, pairs)
        self.pairs = pairs_that_train(pairs, self.settings, referenced=referenced)
        self.referenced, self.counts = referenced, [*counts, *heldout_counts]
        self.whole_here = not parallel.is_sharded(run)
        if self.whole_here:
            self.parent.to(device_of(run))
            if ranks.is_main_process():
                self.before = self.logps(self.parent, self.heldout)

    @property
    def whole_pairs(self) -> list[Pair]:
        """The pairs to train on, for a method that takes no single answers."""
        return [one for one in self.pairs if isinstance(one, Pair)]

    def logps(self, model: Any, pairs: Sequence[Preference]) -> list[float]:
        """Return the log-probabilities of all answers of some pairs, one after another."""
        found = logps_of(model, [side for pair in pairs for side in pair.sides], self.tokenizer.pad_token_id)
        advice = "Nothing is saved. Lower the learning rate, or train the stage before again."
        require_finite([("the log-probability of an answer", found)], f"Stage {self.context.stage}", advice)
        return found

    def parent_logps(self) -> tuple[list[int], list[float]]:
        """Return the places of a few pairs, and the log-probabilities that the parent gives to their answers."""
        places = checked_pairs(self.pairs, self.run)
        return places, self.logps(self.parent, [self.pairs[place] for place in places])

    def require_finite_reference(self, trainer: Any, columns: Sequence[str]) -> None:
        """Check the log-probabilities of the reference that a trainer has computed. Raises ContractError."""
        advice = "Nothing is trained. Leave out the rows that the stage before cannot score, or train it again."
        rows = ((f"{name} of row {place}", value) for name in columns
                for place, value in enumerate(trainer.train_dataset[name]))  # fmt: skip
        require_finite(rows, f"Stage {self.context.stage}", advice)

    def trainer_of_parent(
        self, trainer_class: Any, config_class: Any, rows: Sequence[Mapping[str, Any]], rows_per_pair: int = 1,
        derived: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        """Return a trainer of the parent, with the log-probabilities of its reference computed, where it has one."""
        learner = learner_of(self.context, self.parent)
        if self.referenced:
            with memory.phase(memory.SCORING), shard_references_by_layer(), scoring(self.run, self.settings.train):
                trainer = self.trainer(
                    trainer_class, config_class, learner, rows, rows_per_pair=rows_per_pair, derived=derived,
                    ref_model=reference_of(self.context, self.parent, learner),
                )  # fmt: skip
            trainer.ref_model = None  # its log-probabilities are computed
        else:
            trainer = self.trainer(trainer_class, config_class, learner, rows)
        if self.settings.quantization is not None:
            self.parent.to("cpu")  # the learner is its quantised copy
        if self.heldout and not self.whole_here:
            trainer.add_callback(self._measuring(trainer))
        return trainer

    def _measuring(self, trainer: Any) -> Any:
        """Return what measures in all processes at once while the model is sharded: none of them can hold it whole."""
        path = self.context.work / "heldout.json"

        def begin(args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 0:
                self.before = self.logps(trainer.model_wrapped, self.heldout)
                if ranks.is_main_process():
                    write_json(path, self.before)
            else:
                with as_written(path):
                    self.before = [float(logp) for logp in read_json(path, strict=False)]

        def end(args: Any, state: Any, control: Any, **_: Any) -> None:
            self.after = self.logps(trainer.model_wrapped, self.heldout)

        return callback(on_train_begin=begin, on_train_end=end)

    def save(self, trained: TrainResult, more: Mapping[str, Any] | None = None) -> StageReport:
        """Measure the held-out pairs again, save the result, and return the stage's report with `more` metrics."""
        context, probe = self.context, self.pairs[0].chosen_ids
        trained = merge_adapter(context, trained, probe)
        metrics: dict[str, Any] = {"pairs": sum(isinstance(pair, Pair) for pair in self.pairs), **(more or {})}
        if self.heldout and ranks.is_main_process():
            if self.whole_here:
                self.after = self.logps(to_device(trained.model, self.run), self.heldout)
            metrics |= self._accuracies()
        metrics |= check_and_save(context, trained, self.tokenizer, probe=probe)
        return report(context, trained, metrics, self.counts)

    def _accuracies(self) -> dict[str, Any]:
        """Return the share of right held-out pairs, and of single answers on the side of their label."""
        pairs = [one for one in self.heldout if isinstance(one, Pair)]
        singles = [one for one in self.heldout if isinstance(one, Single)]
        last = 2 * len(pairs)
        before, after = ((found[0:last:2], found[1:last:2]) for found in (self.before, self.after))
        metrics = {}
        if pairs:
            right = accuracy(after, before) if self.referenced else ranked_first(after, pairs)
            metrics["preference_accuracy"] = _share(right, len(pairs))
            if not self.referenced:
                metrics["preference_accuracy"]["before"] = round(ranked_first(before, pairs) / len(pairs), 4)
        if singles:
            right = on_their_side(singles, self.after[last:], self.before[last:])
            metrics["label_accuracy"] = _share(right, len(singles))
        return metrics


def _share(right: int, n: int) -> dict[str, Any]:
    """Return a share with its 95% interval."""
    low, high = wilson(right, n)
    return {name: round(value, 4) for name, value in {"score": right / n, "n": n, "low": low, "high": high}.items()}


def pairs_that_train(
    pairs: Sequence[Preference], settings: PreferenceSettings, *, referenced: bool
) -> list[Preference]:
    """Return the pairs that a stage is given: with a reference and less than a pass over them, as many as it reads.

    Else the reference would read pairs that never train.
    """
    num_pairs = sum(len(pair.sides) for pair in pairs) / 2
    if not referenced or pair_epochs(settings, num_pairs) >= 1:
        return list(pairs)
    most = 2 * pair_steps(settings, num_pairs) * settings.batch_pairs
    answers = itertools.accumulate(len(pair.sides) for pair in pairs)
    return [pair for pair, so_far in zip(pairs, answers, strict=True) if so_far <= most]


def check_precomputed(node: Node, settings: PreferenceSettings, _: object) -> None:
    """Refuse a reference that is computed again at every step. Raises ConfigError."""
    if not settings.train.get("precompute_ref_log_probs", True):
        raise ConfigError(
            f"{node.name}.train.precompute_ref_log_probs=false: the reference is always precomputed here. Remove it."
        )


def require_pairs(num_pairs: int, processes: int, place: str) -> None:
    """Check that there is a pair for every process. Raises DataError that begins with `place`."""
    if num_pairs >= processes:
        return
    few = f"{num_pairs} usable pairs for {processes} processes" if num_pairs else "no usable pair"
    more = "Add pairs or start fewer processes (run.processes)" if num_pairs else "Check where it comes from"
    raise DataError(f"{place} has {few}. {more}.")


def checked_pairs(pairs: Sequence[Preference], run: RunSettings) -> list[int]:
    """Return the places of the pairs whose reference log-probabilities the first process computes a second time."""
    if not ranks.is_main_process():
        return []
    if not parallel.is_sharded(run):
        return list(range(min(NUM_CHECKED, len(pairs))))
    return sorted(range(len(pairs)), key=lambda place: pairs[place].num_tokens)[:NUM_CHECKED_SHARDED]


def _dataset_of(context: StageContext, rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return rows as a data set in the stage's scratch, where all processes find what TRL's trainers make of it.

    What TRL made of them before is used again, but for files that were cut short when the power was lost.
    """
    from datasets import Dataset
    from datasets.arrow_writer import ArrowWriter

    path = context.work / "pairs" / "pairs.arrow"
    if ranks.is_main_process():
        path.parent.mkdir(parents=True, exist_ok=True)
        for found in path.parent.glob("*.arrow"):
            if not _is_whole(found):
                found.unlink()
    if ranks.is_main_process() and not path.is_file():
        fresh = path.with_suffix(".fresh")
        with ArrowWriter(path=str(fresh)) as writer:
            for row in rows:
                writer.write(dict(row))
            writer.finalize()
        flush(fresh)
        fresh.replace(path)
    ranks.barrier()
    return Dataset.from_file(str(path))


def _is_whole(path: Path) -> bool:
    """Whether a stream of Arrow ends with the mark of its end."""
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - len(END_OF_STREAM)))
        return stream.read() == END_OF_STREAM
