"""Load the model that a stage starts from, and save its result.

Usage: `model, tokenizer = load(folder, settings.model)`; `save(model, tokenizer, out, "bfloat16")`.

Weights are safetensors, or a GGUF file where a chain begins; pickled weights are refused. A stage always saves a whole
model: an adapter is merged first and saved in a folder of its own.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.config.schema import ModelSettings
from common.errors import ContractError, DataError
from common.models.boundary import COPY_AGAIN, explain_loading
from common.models.convert import pickles_of
from common.models.finite import require_finite
from common.models.gguf_file import SUFFIX, check_gguf, reading_once
from common.models.language_part import is_built, is_nested, is_tied, not_built, part_of, renamed, text_tensors
from common.models.packed import LEFT_OVER, unpacked
from common.models.remote_code import AUTO_MAP, loadable
from common.models.settings_files import CONFIG, check_settings, read_config
from common.models.shards import check_shards, read_header, shards_of
from common.models.tokenizer import fault_of

DIVERGED = "Give another one: a model with such weights computes nothing, and training goes on from them."
HEADS = ("score.weight", "classifier.weight", "classifier.bias")  # of a classifier, which a language model lacks
# Settings of generation that mean something for sampling alone.
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "top_h")

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def load(folder: Path, model: ModelSettings, **how: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load model and tokenizer of a stage result in float32 for training; `how` is for `from_pretrained`.

    Raises DataError naming the folder when a file is missing, cut short or of another model.
    """
    with reading_once() if folder.suffix == SUFFIX else contextlib.nullcontext():
        return load_model(folder, model, **how), load_tokenizer(folder, model)


def load_model(folder: Path, model: ModelSettings, **how: Any) -> PreTrainedModel:
    """Load the model of a folder in float32, without a tokenizer. Raises DataError as `load` does.

    Of a checkpoint that reads images or sound too it is the language model (`common.models.language_part`).
    """
    from transformers import AutoModelForCausalLM

    given, part = _settings_of(folder, model.trust_remote_code)
    config = None if given is None else unpacked(part or given)
    if part is None and config is None:
        return _load(AutoModelForCausalLM, "checkpoint", folder, model, **how)
    how["config"] = config or part
    if part is not None:
        with explain_loading("configuration of", folder):
            how["key_mapping"] = renamed(folder, _unfilled(part))
    loaded = _load(AutoModelForCausalLM, "checkpoint", folder, model, **how).float()
    del loaded._weight_conversions  # by which transformers 5.23 would save it under the names of what was read
    return loaded


def _settings_of(folder: Path, trusted: bool) -> tuple[PreTrainedConfig | None, PreTrainedConfig | None]:
    """Return the configuration of a checkpoint, and that of the language model within it where it is a part.

    A GGUF file has none that is read here, and nor has a checkpoint whose own code builds its model. Raises DataError
    for a checkpoint without a language model.
    """
    from transformers import AutoConfig

    if folder.suffix == SUFFIX or (trusted and AUTO_MAP in read_config(folder)):
        return None, None
    place = loadable(folder, trusted=False)
    with explain_loading("configuration of", folder):
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
        if (part := part_of(config)) is not None:
            part.tie_word_embeddings = is_tied(folder)
    if not is_built(part or config):
        raise not_built((part or config).model_type, folder / CONFIG)
    return config, part


def _unfilled(config: PreTrainedConfig, trusted: bool = False) -> PreTrainedModel:
    """Build a model without its weights."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=trusted)


def _load(
    auto: Any, name: str, folder: Path, model: ModelSettings, new: Collection[str] = (), **how: Any
) -> PreTrainedModel:
    """Load a model, all of its weights and all of them finite; those of the names in `new` are drawn."""
    import torch

    check_weights(folder)
    how |= {"dtype": torch.float32, "trust_remote_code": model.trust_remote_code}
    how["output_loading_info"] = True
    if folder.suffix == SUFFIX:
        loaded, report = _unpacked(auto, name, folder, **how)
    else:
        place = loadable(folder, model.trust_remote_code)
        with explain_loading(name, folder):
            loaded, report = auto.from_pretrained(place, use_safetensors=True, **how)
    if unfilled := sorted(set(report["missing_keys"]) - set(new)):
        advice = "Take a checkpoint of its language model alone." if "key_mapping" in how else COPY_AGAIN
        raise DataError(
            f"The {name} {folder} lacks tensors of its model ({len(unfilled)}), such as {unfilled[0]}; they would be "
            f"random. {advice}"
        )
    known = {_of_any_layer(tensor) for tensor in loaded.state_dict()}
    numbered = [tensor for tensor in sorted(report["unexpected_keys"]) if _of_any_layer(tensor) != tensor]
    if surplus := [tensor for tensor in numbered if _of_any_layer(tensor) in known]:
        raise DataError(
            f"The {name} {folder} has more layers than its config.json says, as {surplus[0]}; they would be left out. "
            "Correct num_hidden_layers there, or give the files of one checkpoint."
        )
    if scales := [key for key in text_tensors(sorted(report["unexpected_keys"])) if key.endswith(LEFT_OVER)]:
        raise DataError(
            f"The {name} {folder} has scales of weights that its config.json says nothing of, as {scales[0]}; without "
            "them the weights are other numbers. Give the checkpoint that it was quantised from."
        )
    require_finite(loaded.named_parameters(), f"The {name} {folder}", DIVERGED, DataError)
    return loaded


def _of_any_layer(tensor: str) -> str:
    """Return the name of a tensor with the numbers of its layer and its expert left out."""
    return re.sub(r"\.\d+\.", ".#.", tensor)


def _unpacked(auto: Any, name: str, file: Path, **how: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Load a GGUF file as an ordinary model, whatever its weights were packed in; with the report of its loading.

    transformers 5.23 unpacks every weight of most architectures in any case, but then calls the model quantised and
    refuses to save it, unless `dequantize` was asked for.
    """
    from transformers import GgufConfig

    how["quantization_config"] = GgufConfig(dequantize=True)
    with explain_loading(name, file), _alone(file) as folder:
        unpacked, report = auto.from_pretrained(folder, gguf_file=file.name, **how)
    return unpacked, report


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[Path]:
    """Yield a folder that holds a GGUF file and nothing else.

    Its bytes alone identify it, and transformers 5.23 also reads a tokenizer_config.json or tokenizer.json beside it.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / file.name).symlink_to(file.resolve())
        yield Path(folder)


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
    head = () if classifier else HEADS
    loaded = _load(AutoModelForSequenceClassification, "reward model", folder, model, head, **labels, **how)
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
    found = read_config(folder).get("architectures")
    return str(found[0]) if found else ""


def load_tokenizer(folder: Path, model: ModelSettings) -> PreTrainedTokenizerBase:
    """Load the tokenizer alone. Raises DataError naming the folder."""
    from transformers import AutoTokenizer

    with explain_loading("tokenizer of", folder):
        if folder.suffix == SUFFIX:
            with _alone(folder) as place:
                tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=folder.name, trust_remote_code=False)
        else:
            trusted = model.trust_remote_code
            tokenizer = AutoTokenizer.from_pretrained(loadable(folder, trusted), trust_remote_code=trusted)
            if (folder / CONFIG).is_file() and is_nested(read_config(folder)):
                _check_alone(tokenizer, folder, trusted)
        wrong = fault_of(tokenizer)
    if wrong:
        raise DataError(f"The tokenizer of {folder} {wrong}. {COPY_AGAIN}")
    return tokenizer


def _check_alone(tokenizer: PreTrainedTokenizerBase, folder: Path, trusted: bool) -> None:
    """Check that a tokenizer cuts texts in the same way once it is saved beside the language model. Raises DataError.

    transformers 5.23 reads the same file as another class for some types of models, with rules of that class.
    """
    from transformers import AutoTokenizer

    _, part = _settings_of(folder, trusted)
    if part is None:
        return
    with tempfile.TemporaryDirectory() as place:  # as the stage saves it
        tokenizer.save_pretrained(place)
        alone = AutoTokenizer.from_pretrained(place, config=part, trust_remote_code=False)
    rules, own = (getattr(one, "backend_tokenizer", None) for one in (tokenizer, alone))
    if rules is not None and own is not None and rules.to_str() != own.to_str():
        raise DataError(
            f"The tokenizer of {folder} is read as {type(tokenizer).__name__} beside the whole model, and as "
            f"{type(alone).__name__} beside its language model, which cuts texts otherwise. Take a checkpoint of the "
            "language model alone."
        )


def load_skeleton(folder: Path, model: ModelSettings) -> PreTrainedModel:
    """Build the model of a folder without its weights: what it is called by, its sizes, and how it generates.

    Raises DataError naming the folder.
    """
    from transformers import AutoConfig, GenerationConfig

    trusted = model.trust_remote_code
    _, part = _settings_of(folder, trusted)
    place = loadable(folder, trusted)
    with contextlib.ExitStack() as stack:
        stack.enter_context(explain_loading("configuration of", folder))
        how: dict[str, Any] = {"trust_remote_code": trusted}
        if folder.suffix == SUFFIX:
            place, how["gguf_file"] = stack.enter_context(_alone(folder)), folder.name
        skeleton = _unfilled(part or AutoConfig.from_pretrained(place, **how), trusted)
        if (place / "generation_config.json").is_file():
            skeleton.generation_config = GenerationConfig.from_pretrained(place)
    if folder.is_dir():
        _check_shapes(skeleton, folder, {} if part is None else renamed(folder, skeleton))
    return skeleton


def _check_shapes(skeleton: Any, folder: Path, names: Mapping[str, str]) -> None:
    """Check that tensors have the shapes that config.json says; older names of some are not looked for.

    `names` is how those of a part are called in it.
    """
    expected = {name: list(tensor.shape) for name, tensor in skeleton.state_dict().items()}
    for shard in shards_of(folder):
        for stored, entry in read_header(shard).items():
            name = next((re.sub(old, new, stored) for old, new in names.items() if re.match(old, stored)), stored)
            if entry["shape"] != expected.get(name, entry["shape"]):
                raise DataError(
                    f"{shard}: the tensor {stored} has the shape {entry['shape']}; the model of {folder / CONFIG} has "
                    f"{expected[name]}. Correct the sizes there, or give the files of one checkpoint."
                )


def check_weights(folder: Path) -> None:
    """Check that a folder holds whole safetensors weights and usable settings, or that a GGUF file is whole.

    Raises DataError naming the file, and the bytes or the key.
    """
    if folder.suffix == SUFFIX:
        check_gguf(folder)
        return
    check_settings(folder)
    if check_shards(folder):
        return
    if pickled := pickles_of(folder):
        raise DataError(
            f"{folder} holds only {pickled[0].name}, a pickle, which is never loaded. Convert it: python -m "
            f"common.models.convert {folder} <new folder>"
        )
    raise DataError(f"{folder} holds no *.safetensors. Give a folder made by save_pretrained, or a GGUF file.")


def save(model: Any, tokenizer: PreTrainedTokenizerBase, out: Path, dtype: str) -> None:
    """Save weights, configuration, generation configuration, tokenizer and chat template in one folder."""
    import torch

    out.mkdir(parents=True, exist_ok=True)
    model.to(getattr(torch, dtype))
    advice = "Nothing is saved. Lower the learning rate, or set model.dtype to one with a wider range, as bfloat16 has."
    require_finite(model.named_parameters(), f"The model in {dtype}", advice)
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
