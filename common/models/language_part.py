"""The language model within a checkpoint that reads images or sound too, as many published ones do.

Usage: `part = part_of(config)`; `AutoModelForCausalLM.from_pretrained(folder, config=part, key_mapping=renamed(...))`.

Recipes train on text. So a chain goes on with the language model alone, as transformers builds it for text, and its
weights are read straight from the checkpoint's files: what reads images or sound is never loaded.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import DataError
from common.models.settings_files import NESTED, read_config
from common.models.shards import read_header, shards_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

OTHER_SENSES = (  # how parts of names begin that are none of its tensors
    "vision", "visual", "audio", "image", "multi_modal", "mm_", "connector", "embed_vision", "embed_audio", "mtp",
    "aligner", "patch_",
)  # fmt: skip
OF_WHOLE = (  # keys that the whole checkpoint's settings decide
    "bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings", "quantization_config",
)  # fmt: skip
# Language models that count places of images in three directions, and are on text alone what these are.
PLAIN = {
    "qwen2_vl_text": "qwen2", "qwen2_5_vl_text": "qwen2", "qwen2_5_omni_text": "qwen2",
    "qwen3_vl_text": "qwen3", "qwen3_vl_moe_text": "qwen3_moe",
}  # fmt: skip
DIRECTIONS = ("mrope_section", "mrope_interleaved")  # keys of rope_parameters that say how


def is_nested(config: Mapping[str, Any]) -> bool:
    """Whether a config.json has a language model as a part of it."""
    return any(isinstance(config.get(key), dict) for key in NESTED)


def is_of_text(name: str) -> bool:
    """Whether a tensor of such a checkpoint is of its language model, by the words that published ones use."""
    return not any(part.startswith(OTHER_SENSES) for part in name.split("."))


def part_of(config: PreTrainedConfig) -> PreTrainedConfig | None:
    """Return the configuration of the language model within a checkpoint; None for a checkpoint that is one itself.

    Which tokens begin, end and fill a text, whether the head is the embedding, and in what numbers weights are packed
    is the whole checkpoint's to say.
    """
    text = config.get_text_config()
    if text is config or getattr(config, "is_encoder_decoder", False):
        return None
    text = _plain(text) if text.model_type in PLAIN else copy.deepcopy(text)
    for key in OF_WHOLE:
        if (value := getattr(config, key, None)) is not None:
            setattr(text, key, value)
    return text


def _plain(text: PreTrainedConfig) -> PreTrainedConfig:
    """Return the same model in one direction."""
    from transformers import AutoConfig

    of_all = {"model_type", "architectures", "transformers_version"}
    said = {key: value for key, value in text.to_dict().items() if key not in of_all}
    if text.model_type == "qwen3_vl_moe_text":
        said["norm_topk_prob"] = True  # it always evens the weights of the experts it chose
    rope = {key: value for key, value in (said.get("rope_parameters") or {}).items() if key not in DIRECTIONS}
    if rope:
        said["rope_parameters"] = rope
    return AutoConfig.for_model(PLAIN[text.model_type], **said)


def require_language_model(config: PreTrainedConfig, place: Path) -> None:
    """Check that transformers knows a model that writes text for a configuration. Raises DataError."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, __version__

    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise DataError(
            f"{place}: model_type {config.model_type} is nothing that transformers {__version__} builds a language "
            "model from; expected one that reads from left to right, such as Llama. Take another checkpoint."
        )


def renamed(folder: Path, skeleton: PreTrainedModel) -> dict[str, str]:
    """Return how tensors of a checkpoint are called in its language model, as patterns and what stands for them.

    It is known by its embedding: what stands before the name there stands before all its names, but for the head.
    Raises DataError where there is no such tensor, or several.
    """
    table = next(
        name for name, weight in skeleton.named_parameters() if weight is skeleton.get_input_embeddings().weight
    )
    prefix = f"{skeleton.base_model_prefix}." if table.startswith(f"{skeleton.base_model_prefix}.") else ""
    stored = [name for shard in shards_of(folder) for name in read_header(shard)]
    return _renamed(folder, stored, table.removeprefix(prefix), prefix)


def _renamed(folder: Path, stored: Collection[str], table: str, prefix: str) -> dict[str, str]:
    before = sorted(name.removesuffix(table) for name in stored if name == table or name.endswith(f".{table}"))
    if len(before) != 1:
        raise DataError(
            f"{folder}: {len(before)} tensors are called …{table}; expected one, the embedding of its language model. "
            "Give a checkpoint of the language model alone."
        )
    found = {"^" + re.escape(before[0]): prefix} if before[0] != prefix else {}
    heads = {name for name in stored if re.search(r"(^|\.)lm_head\.", name)}
    return found | {"^" + re.escape(name[: name.index("lm_head.")]): "" for name in heads if name[0:8] != "lm_head."}


def note_part(folder: Path, model: PreTrainedModel) -> list[str]:
    """Return a line about a checkpoint whose language model was taken; nothing for others."""
    if not folder.is_dir() or not is_nested(config := read_config(folder)):
        return []
    return [
        f"of {config.get('model_type')}, which reads more than text, the language model was taken "
        f"({model.config.model_type}); the result reads text alone"
    ]
