"""Train an adapter on frozen weights, quantised or not, and merge it into a whole model.

Usage: `learner = learner_of(context, parent)`, then a trainer with `peft_config=adapter_for(context, learner)`, then
`merged, measured = merge(trained, parent, probe, out / "adapter", base)`.

The rule at every boundary: a stage saves a merged, unquantised model, and the adapter in a folder of its own. The next
stage starts from the merged model and uses it as its reference. `common.engine.preflight.backends` checks the backends.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from common.config.stages import CptSettings, LearningSettings
from common.errors import ConfigError
from common.models import checkpoint, contracts
from common.models.device import device_of
from common.models.rope import set_base
from common.store.artifacts import Artifact, write_json
from common.training.distributed import ranks
from common.training.distributed.loading import load_shared

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from common.stage import StageContext

FOLDER = "adapter"  # in a stage's artifact


def load_parent(context: StageContext) -> tuple[Any, PreTrainedTokenizerBase]:
    """Return the parent's model, quantised where `peft` is qlora, and its tokenizer."""
    folder, config = context.parent_artifact.path, context.config
    if quantised := _quantised(context):
        model, tokenizer = checkpoint.load(folder, config.model, **quantised)
    else:
        model = load_shared(folder, config.model, config.run)
        tokenizer = checkpoint.load_tokenizer(folder, config.model)
    return _with_positions(context, model), tokenizer


def whole_parent(context: StageContext) -> Any:
    """Return the parent's model as an adapter trained on it, in this process alone and never quantised."""
    return _with_positions(context, checkpoint.load_model(context.parent_artifact.path, context.config.model))


def _with_positions(context: StageContext, model: Any) -> Any:
    """Return the parent's model as the stage reads positions. Raises ConfigError where that cannot be changed."""
    settings = context.settings
    if isinstance(settings, CptSettings) and settings.rope_theta is not None:
        set_base(model, context.stage, base=settings.rope_theta, length=settings.sequence_length)
    return model


def learner_of(context: StageContext, parent: Any) -> Any:
    """Return the model that a stage trains: the parent itself, or with qlora a quantised copy of it."""
    if options := _quantised(context):
        return checkpoint.load_model(context.parent_artifact.path, context.config.model, **options)
    return parent


def reference_of(context: StageContext, parent: Any, learner: Any) -> Any:
    """Return the model that TRL is given as a reference: the parent, or None where it is the learner itself.

    Under FSDP2 it is a second copy of the parent. The learner is sharded only when training begins; until then TRL
    would read it on the CPU, or load a copy in every process and spread it over all GPUs of the machine.
    """
    run = context.config.run
    if ranks.size() > 1 and run.parallelism == "fsdp2":
        return load_shared(context.parent_artifact.path, context.config.model, run)
    return None if learner is parent else parent


def reward_model_to_train(context: StageContext, *, quantised: bool = True) -> Any:
    """Return the parent with a new head of one number, quantised where `peft` is qlora unless `quantised` is false."""
    how = _quantised(context) if quantised else {}
    folder = context.parent_artifact.path
    return checkpoint.load_reward_model(folder, context.config.model, seed=context.config.seed, **how)


def _quantised(context: StageContext) -> dict[str, Any]:
    """Return what `from_pretrained` needs to quantise; nothing without qlora. Raises ConfigError for a bad value."""
    settings = cast(LearningSettings, context.settings)
    if settings.quantization is None:
        return {}
    from transformers import BitsAndBytesConfig

    try:
        config = BitsAndBytesConfig(**settings.quantization)
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{context.stage}.quantization: transformers refuses these options: {error}") from error
    import torch

    device: str | int = device_of(context.config.run)
    if device == "cuda":  # of several, the one of this process
        device = torch.cuda.current_device()
    return {"quantization_config": config, "device_map": {"": device}}


def adapter_for(context: StageContext, model: Any, task: str = "CAUSAL_LM") -> Any:
    """Return peft's LoraConfig for a stage, or None for full fine-tuning. Raises ConfigError for a bad value.

    Embedding rows of new tokens (`model.new_tokens`, `model.control_tokens`) stay trainable, since an adapter of the
    layers cannot learn them. Weights that the model ties stay tied. Experts that are left out are named on the console.
    """
    settings = cast(LearningSettings, context.settings)
    if settings.peft == "full":
        return None
    from peft import LoraConfig

    options = {"task_type": task, **(settings.lora or {})}
    new_tokens = (*context.config.model.new_tokens, *context.config.model.control_tokens)
    if new_tokens and not options.keys() & {"trainable_token_indices", "modules_to_save"}:
        tokenizer = checkpoint.load_tokenizer(context.parent_artifact.path, context.config.model)
        ids = [int(tokenizer.convert_tokens_to_ids(token)) for token in new_tokens]
        options["trainable_token_indices"] = dict.fromkeys(_rows_of(model), ids)
    if options.get("modules_to_save") and getattr(model.config, "tie_word_embeddings", False):
        options.setdefault("ensure_weight_tying", True)
    if experts := experts_left_out(model, options):
        context.console.line(
            f"  {context.stage}: the adapter leaves experts as they are; {context.stage}.lora.target_parameters="
            f"[{','.join(experts)}] lets them learn, and keeps a second copy of a layer's experts in memory",
            always=True,
        )
    try:
        return LoraConfig(**options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{context.stage}.lora: peft refuses these options: {error}") from error


def experts_left_out(model: Any, options: Mapping[str, Any]) -> list[str]:
    """Return the weights of experts that `all-linear` misses: they are no linear modules, and peft knows few families.

    GPT-OSS and Granite MoE, for example, learn in their attention alone.
    """
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    if options.get("target_modules") != "all-linear" or "target_parameters" in options:
        return []
    known = LoraConfig(target_modules="all-linear")
    convert_peft_config_for_transformers(known, model, None)
    if known.target_parameters:
        return []
    return sorted(
        {
            f"{name.rpartition('.')[2]}.{own}"
            for name, module in model.named_modules()
            if "Experts" in type(module).__name__
            for own, weight in module.named_parameters(recurse=False)
            if weight.dim() == 3  # (experts, in, out); biases have two
        }
    )


def _rows_of(model: Any) -> list[str]:
    """Return the names of the modules that hold a row per token: the embedding, and a head that is not tied to it."""
    tables = [model.get_input_embeddings()]
    if not getattr(model.config, "tie_word_embeddings", False) and model.get_output_embeddings() is not None:
        tables.append(model.get_output_embeddings())
    return [name.rpartition(".")[2] for name, module in model.named_modules() if any(module is t for t in tables)]


def is_adapted(model: Any) -> bool:
    """Whether a model is a base with an adapter of peft."""
    from peft import PeftModel

    return isinstance(model, PeftModel)


def merge(
    trained: Any, parent: Any, probe: Sequence[int], folder: Path, base: Artifact
) -> tuple[Any, dict[str, float]]:
    """Save the adapter in `folder`, load it onto the unquantised `parent`, and merge it.

    Returns the whole model and metrics: how much merging changed the logits and, after training on a quantised base,
    how much the merged model differs from the trained one. Raises ContractError.
    """
    from peft import PeftModel

    quantised = bool(getattr(trained, "is_quantized", False))
    trained_TV = contracts.probe_logits(trained, probe)
    _save(trained, folder, base)
    adapted = PeftModel.from_pretrained(parent, str(folder))
    before_TV = contracts.probe_logits(adapted, probe) if quantised else trained_TV
    merged = adapted.merge_and_unload()
    after_TV = contracts.probe_logits(merged, probe)
    measured = {"adapter_merge_difference": contracts.check_adapter_merge(before_TV, after_TV)}
    if quantised:
        measured["quantized_logit_difference"] = contracts.relative_difference(trained_TV, after_TV)
    return merged, measured


def load_adapter(parent: Any, folder: Path) -> Any:
    """Return a model with the adapter of a folder, trainable as before it was saved."""
    from peft import PeftModel

    return PeftModel.from_pretrained(parent, str(folder), is_trainable=True)


def _save(trained: Any, folder: Path, base: Artifact) -> None:
    """Write the adapter and what it belongs to: the parent's fingerprint and digest instead of a path."""
    trained.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = f"{base.stage}-{base.fingerprint}"
    # Peft writes a set here, whose order changes from process to process.
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()
    write_json(path, config)
    found = {"stage": base.stage, "fingerprint": base.fingerprint, "digest": base.digest}
    write_json(folder / "base.json", {"base": found})


def save_weights(model: Any, path: Path, state: dict[str, Tensor] | None = None) -> None:
    """Write what training changes, an adapter or all weights; `state` are the whole weights of a sharded model."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file, save_model

    if is_adapted(model):
        state = get_peft_model_state_dict(model, state_dict=state)
    if state is None:
        save_model(model, str(path))
    else:
        save_file({name: weight.contiguous() for name, weight in state.items()}, str(path))


def load_weights(model: Any, path: Path) -> None:
    """Load what `save_weights` wrote into the model."""
    from safetensors.torch import load_file, load_model

    if is_adapted(model):
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(model, load_file(str(path)))
    else:
        load_model(model, str(path))
