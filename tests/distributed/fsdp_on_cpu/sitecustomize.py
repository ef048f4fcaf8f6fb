"""Let accelerate shard over gloo, for tests of what a GPU would do: its own FSDP2 code runs on the CPU.

Usage: put this folder on PYTHONPATH of what `accelerate launch` starts with pipelines/accelerate/fsdp2.yaml. By itself
accelerate takes FSDP on a CPU for DDP, without a word.
"""

from __future__ import annotations

import os
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


if os.environ.get("ACCELERATE_USE_FSDP") == "true" and "RANK" in os.environ:
    allow_cpu()
