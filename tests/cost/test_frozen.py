"""What frozen layers keep beside checkpointed ones: where there is room, and priced in memory, time and advice."""

from __future__ import annotations

import pytest

from common.cost.limits import nearest
from common.cost.outlook import Outlook
from common.cost.speed import step_seconds, token_flops
from common.engine.plan import make_plan
from tests.cost.conftest import outlook_of, run_of

STAGE = "cpt-added"
GROWN = {
    "pipeline": "growth", "expand.added": "8", f"{STAGE}.train.gradient_checkpointing": "true",
    f"{STAGE}.sequence_length": "4096", f"{STAGE}.batch_tokens": "65536", "run.micro_batch_tokens": "8192",
}  # fmt: skip
ALL = {f"{STAGE}.train_only": "null"}
KEPT, AGAIN = {"run.keep_frozen": "true"}, {"run.keep_frozen": "false"}


def planned(model: str = "llama-8b", gpu: str = "h200", **words: str) -> Outlook:
    return outlook_of(model, gpu, **{**GROWN, **words})


def test_frozen_layers_keep_their_activations_where_that_fits() -> None:
    found = {gpu: planned(gpu=gpu).settings[STAGE].work for gpu in ("h100-sxm", "h200")}
    assert [work.keeps_frozen for work in found.values() if work is not None] == [False, True]
    assert planned(gpu="h100-sxm", **KEPT).settings[STAGE].work == found["h200"]
    assert planned(gpu="h200", **AGAIN).settings[STAGE].work == found["h100-sxm"]
    reentrant = planned(**{f"{STAGE}.train.gradient_checkpointing_kwargs.use_reentrant": "true"})
    assert reentrant.settings[STAGE].work == found["h100-sxm"]


def test_what_they_keep_takes_memory_and_saves_time() -> None:
    """Of 40 layers every fifth is added, so 28 frozen ones are passed back through, and four are not."""
    kept, again, whole = planned(**KEPT), planned(**AGAIN), planned(**ALL)
    setting = again.settings[STAGE]
    work, shape = setting.work, setting.shape
    assert work is not None
    assert (work.passed(shape), work.learning(shape), work.again(shape)) == (36, 8, 36)
    more, less, most = (each.phases(STAGE)["train"] for each in (kept, again, whole))
    assert less.device_total < more.device_total < most.device_total
    of_layer = 2 * 4 * 4096 + 3 * 2 * 14_336 + 2 * 2 * (4096 + 1024) + 4 * 32 + 8
    assert more.device["activations"] - less.device["activations"] == 28 * 8192 * (of_layer - 4 * 4096)
    assert more.device["bfloat16 copies"] == 2 * (36 * shape.layer_linear + shape.table)  # those of frozen ones too
    assert less.device["bfloat16 copies"] == 2 * (8 * shape.layer_linear + shape.table)


@pytest.mark.parametrize(("model", "added"), [("llama-8b", "8"), ("qwen3-0.6b", "7")])
def test_a_plan_expects_what_growing_was_asked_to_save(model: str, added: str) -> None:
    """1.3 times as fast as training all weights, where frozen layers keep their activations."""
    words = {"expand.added": added, **KEPT}
    steps = []
    for more in ({}, ALL):
        outlook = planned(model, **words, **more)
        steps.append(step_seconds(outlook.settings[STAGE], outlook.hardware))
    assert steps[1] / steps[0] > 1.3


def test_a_layer_that_is_not_computed_again_saves_a_forward_pass() -> None:
    kept, again, plain = (
        planned(**words).settings[STAGE] for words in (KEPT, AGAIN, {f"{STAGE}.train.gradient_checkpointing": "false"})
    )
    flops = []
    for setting in (kept, again, plain):
        assert setting.work is not None
        flops.append(token_flops(setting, setting.work))
    layer = again.shape.forward_flops(again.work.looked_at / 2, head=0) / 40 if again.work is not None else 0.0
    assert flops[1] - flops[0] == pytest.approx(28 * layer)
    assert flops[0] - flops[2] == pytest.approx(8 * layer)


def test_where_it_does_not_fit_the_advice_is_to_compute_them_again() -> None:
    assert nearest(planned(gpu="h100-sxm", **KEPT), STAGE) == ["run.keep_frozen=false"]


def test_a_plan_says_which_it_is() -> None:
    resolved = run_of("llama-8b", "h200", **{**GROWN, "pipeline": "growth"})
    note = next(note for note in make_plan(resolved).notes if note.startswith(f"{STAGE}: "))
    assert note.endswith("learn. Frozen layers above the lowest that learns keep their activations (run.keep_frozen).")
