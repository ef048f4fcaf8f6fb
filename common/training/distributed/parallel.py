"""What each process holds of a model: compared with what was asked for, and put together at the end.

Usage: trainers get `callbacks=callbacks(config.run)`; `check(trainer, config.run)` once training has started, and
`model = whole_model(trainer, folder, load)` after it.

accelerate falls back silently where it cannot do what its file says (there is no FSDP on a CPU; without a GPU,
`accelerate launch` may start a single process): a run that believed it had eight shards would fill one GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.config.batches import SHARDED
from common.config.schema import RunSettings
from common.errors import ConfigError
from common.training import patches
from common.training.adapters import save_weights
from common.training.callbacks import callback
from common.training.distributed import ranks


def is_sharded(run: RunSettings) -> bool:
    """Whether a process holds only a part of a model's weights while it trains."""
    return ranks.size() > 1 and run.parallelism in SHARDED


def check(trainer: Any, run: RunSettings) -> None:
    """Compare what accelerate does with what was asked for. Raises ConfigError."""
    expected = ranks.size()
    found = trainer.accelerator.num_processes
    if found != expected:
        raise ConfigError(
            f"accelerate trains with {found} processes, but {expected} were started, so each would train by itself. "
            "Set run.device=cpu where there is no GPU for each process, or start as many as there are GPUs."
        )
    if expected > 1:
        _require(run, held_as(trainer))


def _require(run: RunSettings, held: str, reason: str = "") -> None:
    if held != run.parallelism:
        raise ConfigError(
            f"run.parallelism={run.parallelism}, but accelerate holds the model as {held}{reason}. Use "
            f"run.parallelism={held if held in ('ddp', *SHARDED) else 'ddp'}, or a machine with a GPU for each process."
        )


def callbacks(run: RunSettings) -> list[Any]:
    """Return what a trainer's `callbacks` need so that FSDP2 is what was asked for before it reads any model.

    Raises ConfigError, where the trainer is built, if accelerate has fallen back: the weights of all processes but the
    first are not there then (`common.training.distributed.loading`).
    """
    if not is_sharded(run) or run.parallelism != "fsdp2":
        return []

    def prepare(args: Any, state: Any, control: Any, **_: Any) -> None:
        from accelerate.state import AcceleratorState

        found = AcceleratorState()
        plugin = getattr(found, "fsdp_plugin", None)
        if plugin is None:
            kind = str(found.distributed_type.value).lower()
            reason = " (accelerate has no FSDP on the CPU)" if kind == "multi_cpu" else ""
            _require(run, "ddp" if kind in ("multi_cpu", "multi_gpu") else kind, reason)
        patches.sum_in_float32(plugin)

    return [callback(on_init_end=prepare)]


def held_as(trainer: Any) -> str:
    """Return how the processes hold the model that trains: ddp, fsdp2, zero3, or what else accelerate calls it."""
    from torch.distributed.tensor import DTensor
    from torch.nn.parallel import DistributedDataParallel

    if any(isinstance(parameter, DTensor) for parameter in trainer.model.parameters()):
        return "fsdp2"
    if getattr(trainer, "is_deepspeed_enabled", False):
        return f"zero{trainer.accelerator.state.deepspeed_plugin.zero_stage}"
    if isinstance(trainer.model_wrapped, DistributedDataParallel):
        return "ddp"
    return str(trainer.accelerator.distributed_type.value).lower()


def whole_model(trainer: Any, run: RunSettings, folder: Path, load: Callable[[Path], Any]) -> Any:
    """Return the trained model whole, as it was before accelerate wrapped it; None in all but the first process.

    Shards are gathered through a checkpoint in `folder`, read back by `load`: of a model that adapts another, its
    adapter alone.
    """
    if not is_sharded(run):
        model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        patches.forget_prepared(model)
        return model if ranks.is_main_process() else None
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # all processes give their shards
    if run.parallelism == "zero3":
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        # Else transformers would share out what the first process reads from now on, and wait for the others.
        unset_hf_deepspeed_config()
    if not ranks.is_main_process():
        return None
    bare = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    bare.save_pretrained(folder, state_dict=state)
    del state
    return load(folder)


def save_weights_of(trainer: Any, path: Path) -> None:
    """Write what training changes, an adapter or all weights: all processes give their part, the first one writes."""
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if held_as(trainer) in SHARDED else None
    if ranks.is_main_process():
        save_weights(trainer.accelerator.unwrap_model(trainer.model), path, state)
