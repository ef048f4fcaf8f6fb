"""The stage before as a teacher: its model, frozen, beside the one that learns, or reading the rows before it does.

Usage: `applied.teacher = teacher_of(context, trainer)`; then `with beside(teacher, run): trainer.train()`. Where some
of its logits suffice: `collator.kept = read_once(context, trainer, rows, collator, applied)`.

It is a model of its own in every process, sharded where the learner is. It computes in the learner's precision, with
the attention that the learner has, so that documents of a row are kept apart in both. It has the learner's vocabulary,
as no stage that trains changes that.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from common.config.schema import RunSettings
from common.config.stages import TrainingSettings
from common.cost.activations import PIECE
from common.models.device import device_of, release_memory
from common.training import patches
from common.training.distributed import parallel, ranks
from common.training.distributed.loading import load_shared
from common.training.methods.top_k import check_top_k, top_k
from common.training.rows.rows import ROWS
from common.training.rows.shards import SCORE
from common.training.rows.taught import PLACE, TopK, TopKStore, learned_in
from common.training.speed.attention import with_attention

if TYPE_CHECKING:
    from datasets import Dataset

    from common.stage import StageContext
    from common.training.methods.applied import Applied
    from common.training.rows.packing import RowCollator

FOLDER = "teacher"  # beside the order of the rows, with which it is removed where they are made again


def teacher_of(context: StageContext, trainer: Any) -> Any:
    """Load the stage before for a trainer, with the autocast of the learner."""
    run = context.config.run
    teacher = load_shared(context.parent_artifact.path, context.config.model, run).requires_grad_(False).eval()
    if parallel.is_sharded(run):
        return patches.shard_reference(teacher, trainer.accelerator)
    return trainer.accelerator.prepare_model(teacher, evaluation_mode=True)


def read_once(
    context: StageContext, trainer: Any, rows: Dataset, collator: RowCollator, applied: Applied
) -> TopKStore:  # fmt: skip
    """Let the stage before read each row that will train, and return where its largest logits are. Then it is gone.

    Processes share the shards. What a killed run has finished is kept as long as its rows are. Of a sharded model every
    process takes part in every forward pass, so one without a shard of its own reads one that another writes. Raises
    ConfigError for more logits than the vocabulary has.
    """
    import numpy as np

    run, stage = context.config.run, context.stage
    vocabulary = int(trainer.model.config.get_text_config().vocab_size)
    k = applied.keeps
    check_top_k(stage, cast(TrainingSettings, context.settings), vocabulary)
    places, first = np.unique(np.asarray(rows.select_columns(PLACE).with_format("numpy")[:][PLACE]), return_index=True)
    store = TopKStore(context.work / ROWS / FOLDER, places, collator.sequence_length, k)
    ranks.barrier()
    done = ranks.broadcast([store.is_done(number) for number in range(store.shards)])
    if all(done):
        return store
    context.console.line(
        f"  {stage}: {context.parent} reads {len(places)} rows once; {k} logits of each token are kept"
    )
    teacher = teacher_of(context, trainer)
    sharded, where = parallel.is_sharded(run), dict(zip(places.tolist(), first.tolist(), strict=True))
    left = [number for number, is_done in enumerate(done) if not is_done]
    with beside(teacher, run):
        for start in range(0, len(left), ranks.size()):
            own = start + ranks.rank()
            if own >= len(left) and not sharded:
                break
            number = left[min(own, len(left) - 1)]
            asked = rows.select([where[place] for place in store.places_of(number).tolist()])
            found = _read(teacher, trainer, asked, collator, applied)
            if own < len(left):
                store.write(number, found)
    del teacher
    trainer.accelerator.free_memory()  # it holds every model that it has prepared; the learner is not yet
    release_memory()
    ranks.barrier()
    return store


def _read(teacher: Any, trainer: Any, rows: Dataset, collator: RowCollator, applied: Applied) -> list[TopK]:
    """Return what a teacher says of some rows, each by itself; it reads as many at once as the learner will."""
    import numpy as np
    import torch

    found, each = [], trainer.args.per_device_train_batch_size
    for start in range(0, len(rows), each):
        inputs = collator(list(rows.select(range(start, min(start + each, len(rows))))))
        labels_BT = inputs.pop("labels")
        learned_BT = torch.from_numpy(learned_in(labels_BT.numpy()))
        next_N = labels_BT.roll(-1, dims=1)[learned_BT].to(trainer.accelerator.device)
        given = {
            name: tensor.to(trainer.accelerator.device) for name, tensor in inputs.items() if not name.startswith(SCORE)
        }
        with torch.inference_mode():
            logits_BTV = teacher(**given, use_cache=False).logits
            most = max(1, PIECE // logits_BTV.shape[-1])
            flat_NV = logits_BTV[learned_BT.to(logits_BTV.device)]
            pieces = [
                top_k(applied.as_kept(logits.float(), following), applied.keeps)
                for logits, following in zip(flat_NV.split(most), next_N.split(most), strict=True)
            ]
        whole = TopK(*(torch.cat(parts).cpu().numpy() for parts in zip(*pieces, strict=True)))
        bounds = np.cumsum([0, *learned_BT.sum(dim=1).tolist()])
        found += [TopK(*(part[start:stop] for part in whole)) for start, stop in itertools.pairwise(bounds)]
    return found


@contextlib.contextmanager
def beside(teacher: Any, run: RunSettings) -> Iterator[None]:
    """Give a teacher the attention of a training for as long as it lasts."""
    if teacher is None:
        yield
        return
    with with_attention(teacher, run, device_of(run)):
        yield
