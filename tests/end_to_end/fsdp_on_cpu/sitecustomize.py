"""Let accelerate shard over gloo, for tests of what a GPU would do: its own FSDP2 code runs on the CPU.

Usage: put this folder on PYTHONPATH of what `accelerate launch` starts with pipelines/accelerate/fsdp2.yaml. By itself
accelerate takes FSDP on a CPU for DDP, without a word. In the folder FSDP_ON_CPU_FACTS, where that is set, each process
leaves a line for each model that is sharded.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def allow_cpu() -> None:
    from accelerate import state
    from accelerate.utils import DistributedType

    begin = state.AcceleratorState.__init__

    def begin_sharded(self: Any, *args: Any, fsdp_plugin: Any = None, **options: Any) -> None:
        begin(self, *args, fsdp_plugin=fsdp_plugin, **options)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin
            if self._mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self._mixed_precision)
            state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    state.AcceleratorState.__init__ = begin_sharded


def tell(folder: Path) -> None:
    """Note of every model how it is sharded, and what this process held before."""
    from accelerate.utils import fsdp_utils
    from torch.distributed.fsdp import FSDPModule

    prepare = fsdp_utils.fsdp2_prepare_model

    def prepare_and_tell(accelerator: Any, model: Any) -> Any:
        before = str(float(model.get_input_embeddings().weight.double().sum()))
        made = prepare(accelerator, model)
        policy = accelerator.state.fsdp_plugin.mixed_precision_policy
        facts = {
            "units": sum(isinstance(module, FSDPModule) for module in made.modules()), "before": before,
            "param": str(policy.param_dtype), "reduce": str(policy.reduce_dtype), "output": str(policy.output_dtype),
        }  # fmt: skip
        folder.mkdir(exist_ok=True)
        with (folder / f"{os.environ['RANK']}.jsonl").open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(facts) + "\n")
        return made

    fsdp_utils.fsdp2_prepare_model = prepare_and_tell
    from accelerate import accelerator as accelerators

    accelerators.fsdp2_prepare_model = prepare_and_tell


if os.environ.get("ACCELERATE_USE_FSDP") == "true" and "RANK" in os.environ:
    allow_cpu()
    if os.environ.get("FSDP_ON_CPU_FACTS"):
        tell(Path(os.environ["FSDP_ON_CPU_FACTS"]))
