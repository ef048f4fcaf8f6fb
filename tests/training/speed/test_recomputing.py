"""Frozen layers are computed again only where memory asks for it, and what is learned is the same to the last bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from common.config.growth import ExpandSettings
from common.models.growth.growing import grow
from common.models.growth.record import Growth, write_growth
from common.store.artifacts import Artifact
from common.training.callbacks import callback
from common.training.fit import trainer_for
from common.training.freezing import freeze
from common.training.loop.trainer import optimized_for
from common.training.rows.rows import TrainingRows
from tests.bench.material import Material, context_for, material
from tests.bench.turns import train_in_turns
from tests.conftest import long

STEPS = 2
WORDS = {
    "cpt.batch_tokens": "512", "cpt.sequence_length": "128", "cpt.train.gradient_checkpointing": "true",
    "run.micro_batch_tokens": "256", "cpt.train_only": "added",
}  # fmt: skip
PAIRS = ExpandSettings(method="control_llm", added=2)
COPIES = ExpandSettings(method="llama_pro", added=2)


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return material("tiny", "cpt", tmp_path_factory.mktemp("material"), STEPS, WORDS)


def trained(m: Material, growth: ExpandSettings, folder: Path, *, plain: bool = False) -> tuple[list[int], list[Any]]:
    """Train a grown model; return how often each layer's matrices are computed for a batch, and all gradients.

    With `plain` as transformers does it by itself.
    """
    torch.manual_seed(0)
    folder.mkdir()
    model = m.model()
    grown = grow(model, growth, "expand")
    layers = int(grown.model.config.num_hidden_layers)
    write_growth(folder, Growth("expand", growth.method, grown.added, layers, 1, 2, 0.0, growth.paired))
    context = dataclasses.replace(m.context, parent="expand", inputs={"expand": Artifact(folder, {"kind": "expand"})})
    freeze(context, grown.model)
    trainer = trainer_for(context, grown.model, m.tokenizer, TrainingRows(m.rows, STEPS, []), folder / "trainer")
    if plain:
        (ours,) = (
            one
            for one in trainer.callback_handler.callbacks
            if one.on_train_begin.__qualname__.startswith("spare_frozen")
        )
        trainer.remove_callback(ours)
    gates = [part for name, part in grown.model.named_modules() if name.endswith("gate_proj")]
    computed: list[int] = [0] * len(gates)
    gradients: list[Any] = []
    for place, gate in enumerate(gates):

        def count(*_: Any, place: int = place) -> None:
            computed[place] += 1

        gate.register_forward_hook(count)

    def seen(*_: Any, **__: Any) -> None:
        gradients.extend(None if p.grad is None else p.grad.clone() for p in grown.model.parameters())

    trainer.add_callback(callback(on_pre_optimizer_step=seen))
    with optimized_for(trainer, context.config.run, "cpt"):
        train_in_turns(trainer, lambda: None)
    batches = 2 * STEPS
    return [times // batches for times in computed], gradients


# Of six layers the third and the last are added; of pairs, which are two copies beside the second and the last of four,
# the frozen ones come first.
@pytest.mark.parametrize(
    ("growth", "words", "computed"),
    [
        (COPIES, {}, [1, 1, 2, 1, 1, 2]),
        (COPIES, {"run.keep_frozen": "false"}, [1, 1, 2, 2, 2, 2]),
        long(COPIES, {"run.keep_frozen": "true", "cpt.precision": "bfloat16"}, [1, 1, 2, 1, 1, 2]),
        long(COPIES, {"cpt.train_only": "embeddings"}, [1] * 6),
        long(COPIES, {"cpt.train_also": "[embed_tokens]"}, [1, 1, 2, 1, 1, 2]),
        (COPIES, {"cpt.train.gradient_checkpointing_kwargs.use_reentrant": "true"}, [2] * 6),
        (PAIRS, {}, [1, 1, 2, 1, 1, 2]),
    ],
    ids=["added", "again", "bfloat16", "embeddings", "also words", "reentrant", "pairs"],
)  # fmt: skip
def test_only_layers_that_learn_are_computed_again(
    growth: ExpandSettings, words: dict[str, str], computed: list[int], read: Material, tmp_path: Path
) -> None:
    m = dataclasses.replace(read, context=context_for("cpt", tmp_path, **{**WORDS, **words}))
    ours, gradients = trained(m, growth, tmp_path / "ours")
    theirs, expected = trained(m, growth, tmp_path / "theirs", plain=True)
    assert ours == computed
    assert theirs == [2] * 6
    assert len(gradients) == len(expected) > 0
    for one, other in zip(gradients, expected, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)
