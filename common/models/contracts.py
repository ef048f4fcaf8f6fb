"""What each stage promises the next, checked before its result is committed.

Usage: `check_vocabulary(model, tokenizer)` and others in memory, then `check_saved(out, ids, logits, clean, work)` on
disk.

Every check raises ContractError naming the promise, what was found and what to do. `common.models.clean_load` runs the
check on disk in a process that has never imported the training code.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.config.json import read_json
from common.errors import ContractError, quoted
from common.models.boundary import is_foreign, reason_of
from common.models.facts import context_of
from common.models.finite import require_finite
from common.models.turns import turn_end
from common.system.outside_code import allowed_digests

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from common.models.clean_load import CleanProcess

REFERENCE_TOLERANCE = 0.05  # nats per answer: autocast of the reference against a float32 recomputation, relative
MERGE_TOLERANCE = 1e-3
GROWTH_TOLERANCE = 1e-5  # in float32; what remains is rounding
MAX_LOOKING_AHEAD = 0.1  # of logits by a token behind them, relative; of a decoder it is rounding
EXTENDED_TOLERANCE = 1e-5  # in float32: a product with more columns may be summed in another order


def check_vocabulary(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Every token id has a row in the embedding, and the output head has as many rows."""
    rows = model.get_input_embeddings().weight.shape[0]
    highest = max(tokenizer.get_vocab().values())
    if highest >= rows:
        raise ContractError(
            f"The tokenizer does not match the model: token id {highest} has no embedding row (the model has {rows}). "
            "Use the checkpoint's own tokenizer, or resize the embeddings before the first stage."
        )
    head = model.get_output_embeddings()
    if head is not None and head.weight.shape[0] != rows:
        raise ContractError(
            f"The output head has {head.weight.shape[0]} rows and the embedding {rows}; they must agree. "
            "Resize both with model.resize_token_embeddings."
        )


def check_stop_tokens(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """The ids that stop generation include the tokenizer's, and padding is set and is not a stop token."""
    stops = model.generation_config.eos_token_id
    stops = set(stops) if isinstance(stops, list | tuple) else {stops}
    if tokenizer.eos_token_id not in stops:
        raise ContractError(
            f"generation_config.eos_token_id is {sorted(map(str, stops))}, but a turn ends in "
            f"{tokenizer.eos_token!r} ({tokenizer.eos_token_id}): the saved model would never stop. "
            "Set eos_token_id of the checkpoint's generation_config.json."
        )
    if tokenizer.pad_token_id is None:
        raise ContractError("The tokenizer has no padding token; set pad_token in tokenizer_config.json.")
    if tokenizer.pad_token_id in stops:
        raise ContractError(
            f"Padding and stop token are the same ({tokenizer.pad_token!r}): padding would hide the stop from the "
            "loss. Set another pad_token in tokenizer_config.json."
        )


def check_tied(model: Any) -> None:
    """Embedding and head share their memory where the configuration says that they are tied."""
    if not getattr(model.config, "tie_word_embeddings", False):
        return
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    if embedding.data_ptr() != head.data_ptr():
        raise ContractError(
            "The configuration ties the output head to the embedding, but the two differ: training has separated them, "
            "or the checkpoint stores an lm_head.weight of its own. Saving would drop one. Set tie_word_embeddings to "
            "false in its config.json."
        )


def check_template(tokenizer: PreTrainedTokenizerBase, parent: PreTrainedTokenizerBase) -> None:
    """The stage saves the chat template that it trained with."""
    theirs, ours = (hashlib.sha256((one.chat_template or "").encode()).hexdigest()[:12] for one in (parent, tokenizer))
    if ours != theirs:
        raise ContractError(
            f"The chat template changed between the stages (sha256 {theirs} before, {ours} now), so the "
            "served prompts would differ from the trained ones. Change it at the base, not in between."
        )


def check_stop_is_learned(labels: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase) -> None:
    """Every conversation's learned tokens contain the token that ends a turn, and every text's its end."""
    ends = {tokenizer.eos_token_id, turn_end(tokenizer)}
    if without := sum(not ends.intersection(row) for row in labels):
        raise ContractError(
            f"In {without} of {len(labels)} conversations no stop token carries a loss, so the model would never learn "
            "to stop. Set model.chat_template=plain, whose turns end in the tokenizer's own."
        )


def probe_logits(model: Any, input_ids: Sequence[int]) -> Tensor:
    """Return the logits (T, V) of a few tokens in evaluation mode, without autocast; (1,) of a reward model."""
    import torch

    was_training = model.training
    model.eval()
    with torch.inference_mode():
        ids_1T = torch.tensor([list(input_ids)], device=next(model.parameters()).device)
        logits_TV = model(input_ids=ids_1T, use_cache=False).logits[0].float().cpu()
    model.train(was_training)
    return logits_TV


def check_decoder(model: Any) -> None:
    """A model reads from left to right, as far as its configuration says. Raises ContractError."""
    from transformers.models.auto import modeling_auto as known

    config = model.config
    with_encoder = config.model_type in known.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    if with_encoder or getattr(config, "is_encoder_decoder", False):
        what = "is of a kind with an encoder"
    elif config.get_text_config() is not config:  # as code of its own may build it
        what = "is a language model and more"
    # GPT-NeoX knows the key too, and reads from left to right whatever it says.
    elif config.model_type in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES and getattr(config, "is_decoder", None) is False:
        what = "reads in both directions (is_decoder is false)"
    else:
        return
    raise ContractError(
        f"The checkpoint {what}, as model_type {config.model_type} says; expected a model that reads from left to "
        "right, such as Llama. Take another checkpoint."
    )


def check_reads(model: Any, input_ids: Sequence[int]) -> None:
    """A model can read and write, and its logits do not go by what stands behind a token. Raises ContractError."""
    import torch
    from transformers import GenerationConfig

    input_ids, published = input_ids[: context_of(model) - 2], model.generation_config
    model.generation_config = GenerationConfig(max_new_tokens=2, pad_token_id=published.pad_token_id)
    try:
        whole_TV, head_TV = probe_logits(model, input_ids), probe_logits(model, input_ids[:-1])
        with torch.inference_mode():
            ids_1T = torch.tensor([list(input_ids)], device=model.device)
            model.generate(input_ids=ids_1T, attention_mask=torch.ones_like(ids_1T))
    except Exception as error:
        if not is_foreign(error):
            raise
        raise ContractError(
            f"The checkpoint was loaded, but transformers cannot run it: {reason_of(error)}. Compare its config.json "
            "with the published one, or take another checkpoint."
        ) from error
    finally:
        model.generation_config = published
    if relative_difference(whole_TV[:-1], head_TV) > MAX_LOOKING_AHEAD:
        raise ContractError(
            f"The checkpoint reads what stands behind a token too (model_type {model.config.model_type}); expected a "
            "model that reads from left to right. Take another checkpoint."
        )


def check_same_weights(found: Any, expected: Any) -> None:
    """The reference of a stage that learns from rewards has the weights of its parent."""
    import torch

    parent = expected.state_dict()
    for name, weight in found.state_dict().items():
        if name not in parent or not torch.equal(weight.to(parent[name]), parent[name]):
            raise ContractError(
                f"The reference model differs from the stage before in {name}, so the KL term would pull to another "
                "model. Remove train options that name a reference."
            )


def check_saved(
    out: Path, input_ids: Sequence[int], logits_TV: Tensor, clean: CleanProcess, work: Path, *,
    trust_remote_code: bool = False,
) -> None:  # fmt: skip
    """A clean process finds every tensor by its name, keeps tied weights tied and computes the same logits."""
    import numpy as np

    advice = "Nothing is committed. Train it at a lower learning rate, or give another checkpoint."
    require_finite([("a logit", logits_TV)], "The model of this stage", advice)
    reference = work / "probe.npy"
    np.save(reference, logits_TV.numpy(), allow_pickle=False)
    found = clean.ask({
        "folder": str(out), "input_ids": list(input_ids), "logits": str(reference),
        "trust_remote_code": trust_remote_code, "allowed": allowed_digests(),
    })  # fmt: skip
    if error := found.get("error"):
        raise ContractError(f"The saved checkpoint does not load in a clean process: {error}")
    for key, what in (("missing", "are missing from"), ("unexpected", "are unknown to the model in")):
        if names := found[key]:
            raise ContractError(
                f"{len(names)} tensors {what} the saved checkpoint, such as {names[0]}: another program would load it "
                "with random weights there. Nothing is committed."
            )
    if found["tied_expected"] and not found["tied"]:
        raise ContractError("The saved checkpoint loads with its embedding and head separated; nothing is committed.")
    limit = found["tolerance"]
    if not found["difference"] <= limit:  # also where it is NaN
        raise ContractError(
            f"The saved checkpoint computes other logits than the trained model (difference "
            f"{found['difference']:.2g}, allowed {limit:.2g}); nothing is committed."
        )


def relative_difference(found_TV: Tensor, expected_TV: Tensor) -> float:
    """Return the largest difference between logits, relative to the largest expected one (at least 1)."""
    return float((found_TV - expected_TV).abs().max()) / max(1.0, float(expected_TV.abs().max()))


def check_adapter_merge(before_TV: Tensor, after_TV: Tensor) -> float:
    """Merging an adapter into its base leaves the logits as they were; return the largest relative difference."""
    difference = relative_difference(after_TV, before_TV)
    if not difference <= MERGE_TOLERANCE:  # also where it is NaN
        raise ContractError(
            f"Merging the adapter changed the logits by {difference:.2g} of their range (allowed {MERGE_TOLERANCE}). "
            "Train in a wider type, or keep the adapter apart."
        )
    return difference


def check_grown(after_TV: Tensor, before_TV: Tensor, preserving: bool) -> float:
    """A method that promises so leaves the logits as they were; return the largest relative difference."""
    difference = relative_difference(after_TV, before_TV)
    if preserving and not difference <= GROWTH_TOLERANCE:  # also where it is NaN
        raise ContractError(
            f"The grown model computes other logits than the one before it (difference {difference:.2g} of their "
            f"range, allowed {GROWTH_TOLERANCE}); nothing is committed. Its architecture adds to the residual in a way "
            "that growth does not know: use another checkpoint."
        )
    return difference


def check_reference(recorded: Sequence[float], recomputed: Sequence[float]) -> None:
    """The reference log-probabilities of preference tuning are those of its parent.

    Another model would differ for most answers, so the median decides. A single answer may differ more where it was
    scored in bfloat16.
    """
    advice = "Nothing is trained. Give a base whose weights are sound, or train in a wider type."
    for what, logps in (("The recorded reference", recorded), ("The stage before", recomputed)):
        require_finite([("a log-probability", list(logps))], what, advice)
    off = [abs(a - b) / max(1.0, abs(b)) for a, b in zip(recorded, recomputed, strict=True)]
    typical = statistics.median(off) if off else 0.0
    if typical > REFERENCE_TOLERANCE:
        raise ContractError(
            "The reference of preference tuning is not the stage before it: log-probabilities differ by "
            f"{typical:.1%} in the median (allowed {REFERENCE_TOLERANCE:.0%}). Remove the stage's scratch folder and "
            "run again."
        )


def check_tokenizer(out: Path, parent: Path) -> None:
    """The saved tokenizer splits texts as the parent's does."""
    before, now = tokenizer_digest(parent), tokenizer_digest(out)
    if before != now:
        raise ContractError(
            f"The tokenizer changed between the stages (sha256 {before[:12]} before, {now[:12]} now), so "
            "ids would mean other tokens. Change it at the base, not in between."
        )


def check_extended_tokenizer(tokenizer: PreTrainedTokenizerBase, parent: PreTrainedTokenizerBase) -> None:
    """An extended tokenizer has each token of its parent under its id, and the same special tokens."""
    ours = tokenizer.get_vocab()
    moved = [name for name, index in parent.get_vocab().items() if ours.get(name) != index]
    if moved:
        raise ContractError(
            f"Extending the tokenizer moved {len(moved)} of its tokens, such as {quoted(moved[0])}, to other ids, so "
            "their rows would mean other tokens. Nothing is committed. Use a checkpoint with another tokenizer."
        )
    if tokenizer.special_tokens_map != parent.special_tokens_map:
        raise ContractError(
            f"Extending the tokenizer changed its special tokens ({quoted(parent.special_tokens_map)} before, "
            f"{quoted(tokenizer.special_tokens_map)} now). Nothing is committed. Use a checkpoint with another "
            "tokenizer."
        )


def check_cut(before: Sequence[Sequence[int]], after: Sequence[Sequence[int]], known: int) -> None:
    """Texts, as ids before and after a tokenizer was extended, differ only where a new token (`known` or more) is."""
    changed = sum(old != new for old, new in zip(before, after, strict=True) if max(new, default=0) < known)
    if changed:
        raise ContractError(
            f"Extending the tokenizer changed how {changed} of {len(before)} held-out texts are cut that have none of "
            "the new tokens. Nothing is committed. Use a checkpoint with another tokenizer."
        )


def check_extended_model(before_TV: Tensor, after_TV: Tensor, known: int) -> float:
    """A model whose tables got rows gives old tokens their logits; return the largest relative difference.

    `known` is how many old tokens there are. Rows behind them are spare ones of a padded vocabulary, which new tokens
    may take.
    """
    difference = relative_difference(after_TV[:, :known], before_TV[:, :known])
    if not difference <= EXTENDED_TOLERANCE:  # also where it is NaN
        raise ContractError(
            f"New rows changed the logits of old tokens by {difference:.2g} of their range (allowed "
            f"{EXTENDED_TOLERANCE}); nothing is committed. Use another checkpoint."
        )
    return difference


def check_reward_model(name: str, folder: Path, parent: Path) -> None:
    """A reward model reads the tokens of the model whose answers it scores."""
    if tokenizer_digest(folder) != tokenizer_digest(parent):
        raise ContractError(
            f"The reward model {name} has another tokenizer than the model whose answers it scores, so it would read "
            "other tokens than were written. Train it from a model of the same family (`kind: reward, from: <stage>`)."
        )


def tokenizer_digest(folder: Path) -> str:
    """Return the SHA-256 of what a checkpoint's tokenizer.json says, run-time padding and truncation left out."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ContractError(f"{folder.name} has no tokenizer.json; save the tokenizer beside the model.")
    core = {**read_json(path, strict=False), "padding": None, "truncation": None}
    return hashlib.sha256(json.dumps(core, sort_keys=True).encode()).hexdigest()
