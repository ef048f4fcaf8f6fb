"""Load the model that several processes will train together, so that weights are read once where that suffices.

Usage: `model = load_shared(folder, config.model, config.run)`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from common.config.schema import ModelSettings, RunSettings
from common.models.boundary import explain_loading
from common.models.checkpoint import check_weights, load_model
from common.models.remote_code import loadable
from common.training.distributed import ranks

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_shared(folder: Path, model: ModelSettings, run: RunSettings) -> PreTrainedModel:
    """Load the model that processes will train together, as `load_model` does; in float32.

    Under FSDP2 the first process alone reads the weights. The others get their shards from it once accelerate prepares
    the model, and until then hold the right shapes in memory that was never written to, which takes no room.
    """
    flags = ("ACCELERATE_USE_FSDP", "FSDP_CPU_RAM_EFFICIENT_LOADING")  # from pipelines/accelerate/fsdp2.yaml
    announced = all(os.environ.get(flag, "").lower() == "true" for flag in flags)
    if run.parallelism != "fsdp2" or ranks.is_main_process() or not announced:
        return load_model(folder, model)
    check_weights(folder)
    place = loadable(folder, model.trust_remote_code)
    with explain_loading("checkpoint", folder):
        return _unfilled(place, model.trust_remote_code)


def _unfilled(folder: Path, trusted: bool) -> PreTrainedModel:
    """Build a model without its weights; buffers are real, and tied weights are tied."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    config = AutoConfig.from_pretrained(folder, trust_remote_code=trusted)
    with no_init_weights():
        built = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=trusted)
    built.tie_weights()
    return built.eval()
