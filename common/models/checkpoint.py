"""Load the model that a stage starts from, and save its result.

Usage: `model, tokenizer = load(folder, settings.model)`; `save(model, tokenizer, out, "bfloat16")`.

Weights are safetensors, or a GGUF file where a chain begins; pickled weights are refused. A stage always saves a whole
model: an adapter is merged first and saved in a folder of its own.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.config.schema import ModelSettings
from common.errors import ContractError, DataError, first_line
from common.models.convert import pickles_of
from common.models.gguf_file import SUFFIX, check_gguf
from common.models.remote_code import loadable
from common.system.files import open_regular, read_text

# Settings of generation that mean something for sampling alone.
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "top_h")

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load(folder: Path, model: ModelSettings, **how: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load model and tokenizer of a stage result in float32 for training; `how` is for `from_pretrained`.

    Raises DataError naming the folder when a file is missing, cut short or of another model.
    """
    return load_model(folder, model, **how), load_tokenizer(folder, model)


def load_model(folder: Path, model: ModelSettings, **how: Any) -> PreTrainedModel:
    """Load the model of a folder in float32, without a tokenizer. Raises DataError as `load` does."""
    from transformers import AutoModelForCausalLM

    return _load(AutoModelForCausalLM, "checkpoint", folder, model, **how)


def _load(auto: Any, name: str, folder: Path, model: ModelSettings, **how: Any) -> PreTrainedModel:
    import torch

    check_weights(folder)
    how |= {"dtype": torch.float32, "trust_remote_code": model.trust_remote_code}
    if folder.suffix == SUFFIX:
        return _unpacked(auto, name, folder, **how)
    place = loadable(folder, model.trust_remote_code)
    with explain_loading(name, folder):
        return auto.from_pretrained(place, use_safetensors=True, **how)


def _unpacked(auto: Any, name: str, file: Path, **how: Any) -> PreTrainedModel:
    """Load a GGUF file as an ordinary model, whatever its weights were packed in.

    transformers 5.23 unpacks every weight of most architectures in any case, but then calls the model quantised and
    refuses to save it, unless `dequantize` was asked for.
    """
    from transformers import GgufConfig

    how["quantization_config"] = GgufConfig(dequantize=True)
    with explain_loading(name, file), _alone(file) as folder:
        unpacked: PreTrainedModel = auto.from_pretrained(folder, gguf_file=file.name, **how)
    return unpacked


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[Path]:
    """Yield a folder that holds a GGUF file and nothing else.

    Its bytes alone identify it, and transformers 5.23 also reads a tokenizer_config.json or tokenizer.json beside it.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / file.name).symlink_to(file.resolve())
        yield Path(folder)


@contextlib.contextmanager
def explain_loading(name: str, folder: Path) -> Iterator[None]:
    """Turn what transformers raises, or code that came with a checkpoint, into a DataError that names the folder."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, AttributeError) as error:
        raise DataError(f"The {name} {folder} cannot be loaded: {first_line(error)}") from error


def load_reward_model(folder: Path, model: ModelSettings, seed: int | None = None, **how: Any) -> PreTrainedModel:
    """Load a reward model, a classifier with one label, in float32; with `seed`, a language model given a new head.

    Raises DataError naming the folder when it is neither.
    """
    from transformers import AutoModelForSequenceClassification, set_seed

    check_weights(folder)
    classifier = architecture(folder).endswith("ForSequenceClassification")
    if not classifier and seed is None:
        raise DataError(
            f"{folder} is no reward model: config.json names {architecture(folder) or 'no class'}, expected a class "
            "…ForSequenceClassification with one label. Give a folder of a reward model."
        )
    if seed is not None:
        set_seed(seed)
    labels = {} if classifier else {"num_labels": 1}
    loaded = _load(AutoModelForSequenceClassification, "reward model", folder, model, **labels, **how)
    if loaded.config.num_labels != 1:
        raise DataError(
            f"The reward model {folder} has {loaded.config.num_labels} labels; expected one number per conversation "
            "(num_labels: 1 in config.json)."
        )
    if loaded.config.pad_token_id is None:  # the model finds the last token by the padding behind it
        loaded.config.pad_token_id = load_tokenizer(folder, model).pad_token_id
    return loaded


def architecture(folder: Path) -> str:
    """Return the class that config.json names first, or an empty text."""
    found = json.loads(read_text(folder / "config.json")).get("architectures")
    return str(found[0]) if found else ""


def load_tokenizer(folder: Path, model: ModelSettings) -> PreTrainedTokenizerBase:
    """Load the tokenizer alone. Raises DataError naming the folder."""
    from transformers import AutoTokenizer

    if folder.suffix == SUFFIX:
        with explain_loading("tokenizer of", folder), _alone(folder) as place:
            return AutoTokenizer.from_pretrained(place, gguf_file=folder.name, trust_remote_code=False)
    place = loadable(folder, model.trust_remote_code)
    with explain_loading("tokenizer of", folder):
        return AutoTokenizer.from_pretrained(place, trust_remote_code=model.trust_remote_code)


def load_skeleton(folder: Path, model: ModelSettings) -> PreTrainedModel:
    """Build the model of a folder without its weights: what it is called by, its sizes, and how it generates.

    Raises DataError naming the folder.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    place = loadable(folder, model.trust_remote_code)
    with contextlib.ExitStack() as stack:
        stack.enter_context(explain_loading("configuration of", folder))
        how: dict[str, Any] = {"trust_remote_code": model.trust_remote_code}
        if folder.suffix == SUFFIX:
            place, how["gguf_file"] = stack.enter_context(_alone(folder)), folder.name
        config = AutoConfig.from_pretrained(place, **how)
        with torch.device("meta"):
            skeleton = AutoModelForCausalLM.from_config(config, trust_remote_code=model.trust_remote_code)
        if (place / "generation_config.json").is_file():
            skeleton.generation_config = GenerationConfig.from_pretrained(place)
    return skeleton


def check_weights(folder: Path) -> None:
    """Check that a folder holds whole safetensors weights, or that a GGUF file is whole.

    Raises DataError naming the file and the bytes missing.
    """
    if folder.suffix == SUFFIX:
        check_gguf(folder)
        return
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder} is no checkpoint: config.json is missing. Give a folder made by save_pretrained.")
    shards = shards_of(folder)
    if missing := sorted(_indexed(folder) - {shard.name for shard in shards}):
        raise DataError(f"{folder} lacks {missing[0]}, which its index names. Copy or download it again.")
    if not shards:
        if pickled := pickles_of(folder):
            raise DataError(
                f"{folder} holds only {pickled[0].name}, a pickle, which is never loaded. Convert it: python -m "
                f"common.models.convert {folder} <new folder>"
            )
        raise DataError(f"{folder} holds no *.safetensors. Give a folder made by save_pretrained, or a GGUF file.")
    for shard in shards:
        header = read_header(shard)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        with open_regular(shard) as stream:
            expected_size = 8 + int.from_bytes(stream.read(8), "little") + end
        if shard.stat().st_size != expected_size:
            raise DataError(
                f"{shard} is cut short: {shard.stat().st_size:,} bytes, its header says {expected_size:,}. "
                "Copy or download it again."
            )


def shards_of(folder: Path) -> list[Path]:
    """Return the files of weights that are read: those of the index, where there is one, else all.

    Some folders hold the same weights a second time under other names, such as consolidated.safetensors.
    """
    named = _indexed(folder)
    return sorted(shard for shard in folder.glob("*.safetensors") if not named or shard.name in named)


def _indexed(folder: Path) -> set[str]:
    index = folder / "model.safetensors.index.json"
    try:
        return set(json.loads(read_text(index))["weight_map"].values()) if index.is_file() else set()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{index} is no index of weights. Copy or download it again.") from error


def read_header(shard: Path) -> dict[str, Any]:
    """Return tensor name -> {dtype, shape, data_offsets} of a safetensors file. Raises DataError if it is broken."""
    try:
        with open_regular(shard) as stream:
            length = int.from_bytes(stream.read(8), "little")
            header: dict[str, Any] = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        for entry in header.values():
            begin, end = entry["data_offsets"]
            if not all(isinstance(number, int) for number in (begin, end, *entry["shape"])):
                raise ValueError("sizes are no whole numbers")
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, MemoryError) as error:
        raise DataError(f"{shard} is no whole safetensors file; copy or download it again.") from error
    return header


def save(model: Any, tokenizer: PreTrainedTokenizerBase, out: Path, dtype: str) -> None:
    """Save weights, configuration, generation configuration, tokenizer and chat template in one folder."""
    import torch

    out.mkdir(parents=True, exist_ok=True)
    model.to(getattr(torch, dtype))
    model.config.dtype = dtype
    if model.can_generate():
        model.generation_config.do_sample = False
        for key in SAMPLING:  # transformers refuses to save them beside greedy generation
            setattr(model.generation_config, key, None)
    if getattr(model.config, "output_router_logits", False):
        model.config.output_router_logits = False  # TRL asks for them by itself; transformers 5.23 cannot generate then
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    if stray := [p.name for p in out.rglob("*") if p.suffix in {".bin", ".pt", ".pkl", ".pth"}]:
        raise ContractError(f"Saving wrote a pickled file, {stray[0]}; nothing is committed. Report this as a bug.")
