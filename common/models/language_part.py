"""The language model within a checkpoint that reads images or sound too, as many published ones do.

Usage: `part = part_of(config)`; `AutoModelForCausalLM.from_pretrained(folder, config=part, key_mapping=renamed(...))`.

Recipes train on text. So a chain goes on with the language model alone, as transformers builds it for text, and its
weights are read straight from the checkpoint's files: what reads images or sound is never loaded.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import DataError
from common.models.settings_files import NESTED, read_config
from common.models.shards import read_header, shards_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

OTHER_SENSES = (  # how parts of names begin that are none of its tensors
    "vision", "visual", "audio", "image", "multi_modal", "mm_", "connector", "embed_vision", "embed_audio", "mtp",
    "aligner", "patch_", "qformer", "talker", "token2wav", "code2wav",
)  # fmt: skip
OTHER_CONFIGS = ("vision_config", "audio_config")  # beside which older files have the language model's keys
OF_WHOLE = ("bos_token_id", "eos_token_id", "pad_token_id", "quantization_config")  # keys that the whole decides
# Language models that count places of images in three directions, and are on text alone what these are.
SAME_ON_TEXT = {
    "qwen2_vl_text": "qwen2", "qwen2_5_vl_text": "qwen2", "qwen2_5_omni_text": "qwen2", "qwen3_vl_text": "qwen3",
}  # fmt: skip
DIRECTIONS = ("mrope_section", "mrope_interleaved", "type")  # keys of rope_parameters that say how
TABLES = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")  # names of embeddings
HEAD = "lm_head."


def is_nested(config: Mapping[str, Any]) -> bool:
    """Whether a config.json has a language model as a part of it."""
    return any(isinstance(config.get(key), dict) for key in (*NESTED, *OTHER_CONFIGS))


def text_tensors(stored: Collection[str]) -> list[str]:
    """Return which tensors of such a checkpoint are of its language model, as far as their names say."""
    of_text = [name for name in stored if not any(part.startswith(OTHER_SENSES) for part in name.split("."))]
    tables = [name for name in of_text if name.endswith(TABLES)]
    before = min((name.removesuffix(next(filter(name.endswith, TABLES))) for name in tables), key=len, default="")
    return [name for name in of_text if name.startswith(before) or HEAD in name]


def part_of(config: PreTrainedConfig) -> PreTrainedConfig | None:
    """Return the configuration of the language model within a checkpoint; None for a checkpoint that is one itself.

    Which tokens begin, end and fill a text, and how weights are packed, is the whole checkpoint's to say. Raises
    DataError for a kind of model that has no parts, but is given the settings of one.
    """
    if getattr(config, "is_encoder_decoder", False) or (text := config.get_text_config()) is config:
        return None
    if isinstance(text, dict):
        raise DataError(
            f"config.json gives a {config.model_type} the settings of a part (text_config), which that kind of model "
            "has not; transformers would not save it. Remove the key, or take another checkpoint."
        )
    text = _in_one_direction(text) if text.model_type in SAME_ON_TEXT else copy.deepcopy(text)
    for key in OF_WHOLE:
        if (value := getattr(config, key, None)) is not None:
            setattr(text, key, value)
    return text


def _in_one_direction(text: PreTrainedConfig) -> PreTrainedConfig:
    from transformers import AutoConfig

    of_kind = {"model_type", "architectures", "transformers_version"}
    said = {key: value for key, value in text.to_dict().items() if key not in of_kind}
    rope = {key: value for key, value in (said.get("rope_parameters") or {}).items() if key not in DIRECTIONS}
    if rope:
        said["rope_parameters"] = rope
    return AutoConfig.for_model(SAME_ON_TEXT[text.model_type], **said)


def is_tied(folder: Path) -> bool:
    """Whether the head of a checkpoint's language model is its embedding.

    Without a head in the files it is. With one it is where config.json says so; defaults of transformers are of no use,
    as those of a whole and of its part differ.
    """
    names = [name for shard in shards_of(folder) for name in read_header(shard)]
    if not any(HEAD in name for name in text_tensors(names)):
        return True
    found = read_config(folder)
    stated = [place.get("tie_word_embeddings") for place in (found, *(found.get(key) or {} for key in NESTED))]
    return next((bool(value) for value in stated if value is not None), False)


def is_built(config: PreTrainedConfig) -> bool:
    """Whether transformers knows a model that writes text for a configuration."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    return type(config) in MODEL_FOR_CAUSAL_LM_MAPPING


def not_built(model_type: str, place: Path) -> DataError:
    """Return what is said of a kind of model of which transformers builds no language model."""
    return DataError(
        f"{place}: model_type {model_type} is nothing that transformers {version('transformers')} builds a language "
        "model from; expected one that reads from left to right, such as Llama. Take another checkpoint."
    )


def renamed(folder: Path, skeleton: PreTrainedModel) -> dict[str, str]:
    """Return how tensors of a checkpoint are called in its language model, as patterns and what stands for them.

    It is known by its embedding: what stands before the name there stands before all its names, but for the head.
    Raises DataError where there is no such tensor, or several.
    """
    embedding = skeleton.get_input_embeddings().weight
    table = next(name for name, weight in skeleton.named_parameters() if weight is embedding)
    prefix = f"{skeleton.base_model_prefix}." if table.startswith(f"{skeleton.base_model_prefix}.") else ""
    table = table.removeprefix(prefix)
    stored = text_tensors([name for shard in shards_of(folder) for name in read_header(shard)])
    tables = [name for name in stored if name == table or name.endswith(f".{table}")]
    if len(tables) != 1:
        raise DataError(
            f"{folder}: {len(tables)} tensors are called …{table}; expected one, the embedding of its language model. "
            "Give a checkpoint of the language model alone."
        )
    before = tables[0].removesuffix(table)
    heads = {name[: name.index(HEAD)] for name in stored if re.search(rf"(^|\.){re.escape(HEAD)}", name)}
    head = max((place for place in heads if tables[0].startswith(place)), key=len, default="")
    found = {f"^{re.escape(head + HEAD)}": HEAD} if head else {}
    if before != prefix:
        found[f"^{re.escape(before)}(?!{re.escape(HEAD)})"] = prefix
    return found


def note_part(folder: Path, model: PreTrainedModel) -> list[str]:
    """Return a line about a checkpoint whose language model was taken; nothing for others."""
    config = read_config(folder) if folder.is_dir() else {}
    given, taken = config.get("model_type"), model.config.model_type
    if not is_nested(config) or given == taken:
        return []
    reads = "the result reads text alone"
    return [f"of {given}, which reads more than text, the language model was taken ({taken}); {reads}"]
