"""The state of an optimizer at the end of a stage, kept beside its result, with which a later stage goes on.

Usage: `keep_state(context, trainer)` once it is trained; the later one has `trainer.add_callback(resume_state(...))`.

It is a shared result of the store, made only where a later stage of the run asks for it (`optimizer: carry`), so that
other runs hold nothing of it. Removed by hand, it comes back with the stage itself, which is then made again. Where
results are stored in less than float32 the weights are kept too, so that nothing is lost between two stages. What is
not carried: the rates and the decay, which are the later stage's own, and the order of rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import ConfigError
from common.store.artifacts import fingerprint_of
from common.training.callbacks import callback
from common.training.distributed import ranks
from common.training.distributed.tensors import as_weight, whole
from common.training.methods.state import HEAD

if TYPE_CHECKING:
    from common.stage import StageContext

OPTIMIZER = "optimizer"  # kind of the shared result
FILE = "optimizer.safetensors"
SEPARATOR = "|"  # between the name of a weight and that of its state
WEIGHT = "weight"  # in the place of a state: the weight itself


def state_recipe(fingerprint: str) -> dict[str, Any]:
    """Return what identifies the state that a stage leaves, by the fingerprint of its result."""
    return {"schema": 1, "kind": OPTIMIZER, "of": fingerprint}


def keep_state(context: StageContext, trainer: Any) -> None:
    """Keep the state of a training that has ended, where a later stage goes on with it; all processes give theirs."""
    if not context.carried:
        return
    found = state_of(trainer.model, trainer.optimizer, weights=context.config.model.dtype != "float32")
    if not ranks.is_main_process():
        return
    assert context.shared is not None, "a stage that others go on with is made in a store"

    def make(work: Path, out: Path) -> dict[str, Any]:
        from safetensors.torch import save_file

        save_file(found, str(out / FILE))
        return {"parent": context.fingerprint}

    context.shared.get(OPTIMIZER, state_recipe(context.fingerprint), make)


def state_of(model: Any, optimizer: Any, *, weights: bool) -> dict[str, Any]:
    """Return the state of an optimizer by the names of weights, and with `weights` these too; all processes take part.

    In others than the first the tensors are None.
    """
    found: dict[str, Any] = {}
    for name, weight in model.named_parameters():
        if name.startswith(HEAD):
            continue
        parts = {**optimizer.state.get(weight, {}), **({WEIGHT: weight} if weights else {})}
        for key, value in parts.items():
            found[f"{name}{SEPARATOR}{key}"] = whole(value)
    return found


def resume_state(context: StageContext, trainer: Any) -> Any:
    """Return what gives a new training the state of the stage before. Raises ConfigError for one of another shape."""
    path = _path(context)

    def begin(args: Any, state: Any, control: Any, **_: Any) -> None:
        if not state.global_step:  # a training that was killed has its own state
            _give(context, trainer, path)

    return callback(on_train_begin=begin)


def _path(context: StageContext) -> Path:
    """Return the file with the state of the stage before. Raises ConfigError where it is not kept."""
    assert context.shared is not None, "a stage that goes on with another is made in a store"

    def missing(work: Path, out: Path) -> Mapping[str, Any]:
        raise ConfigError(
            f"{context.stage}.optimizer=carry: the state of {context.parent} is not kept. Make {context.parent} again "
            "in a run that has both stages."
        )

    parent = context.parent_artifact.fingerprint
    name = context.shared.store.folder(OPTIMIZER, fingerprint_of(state_recipe(parent))).name
    if ranks.is_main_process():
        context.shared.get(OPTIMIZER, state_recipe(parent), missing)
    ranks.barrier()
    found = context.shared.find(name)
    assert found is not None, "the first process has seen it"
    return found.path / FILE


def _give(context: StageContext, trainer: Any, path: Path) -> None:
    """Give a new training the state in a file. Raises ConfigError for one of another shape."""
    try:
        give_state(trainer.model, trainer.optimizer, path)
    except ValueError as error:
        raise ConfigError(
            f"{context.stage}.optimizer=carry: {context.parent} left {error}. Use optimizer=fresh behind a stage that "
            "changes the model."
        ) from error


def give_state(model: Any, optimizer: Any, path: Path) -> None:
    """Give an optimizer the state in a file, and the model the weights in it.

    Raises ValueError where one has no place.
    """
    import torch
    from safetensors import safe_open

    weights = dict(model.named_parameters())
    groups = optimizer.state_dict()["param_groups"]
    held = [weight for group in optimizer.param_groups for weight in group["params"]]
    numbers = [number for group in groups for number in group["params"]]
    number_of = {id(weight): number for number, weight in zip(numbers, held, strict=True)}
    states: dict[int, dict[str, Any]] = {}
    with safe_open(str(path), framework="pt") as file, torch.no_grad():
        for full in file.keys():  # noqa: SIM118 # safe_open is no mapping
            name, _, key = full.partition(SEPARATOR)
            tensor, weight = file.get_tensor(full), weights.get(name)
            shaped = tensor.dim() > 0  # a number of steps is none
            if weight is None or (shaped and tensor.shape != weight.shape):
                now = "missing" if weight is None else f"of shape {tuple(weight.shape)}"
                raise ValueError(f"a state of shape {tuple(tensor.shape)} for {name}, which is {now} here")
            value = as_weight(tensor, weight) if shaped else tensor
            if key == WEIGHT:
                weight.copy_(value)
            elif id(weight) in number_of:
                states.setdefault(number_of[id(weight)], {})[key] = value
    optimizer.load_state_dict({"state": states, "param_groups": groups})
