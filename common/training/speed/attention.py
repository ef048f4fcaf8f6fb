"""Which attention a model trains with: the fastest that keeps documents apart, by device.

Usage: `with with_attention(model, config.run, device="cuda"): trainer.train()`.

On a CPU it is torch's scaled dot product in float32, whatever autocast says: in bfloat16 its backward pass takes up to
eight times as long over rows of a few hundred tokens. Where many short documents share a row, each gets a row of its
own, so that nothing is computed between documents. On CUDA it is torch's own variable-length attention, which needs no
mask and no build of flash-attn. All are registered with transformers; after training a model has its own back.
Shapes: B rows of T tokens, H heads (fewer of keys and values), D the size of a head.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from common.config.schema import RunSettings
from common.errors import ConfigError, did_you_mean, first_line
from common.training.distributed import ranks
from common.training.patches import name_parts
from common.training.speed.documents import Documents, documents_of
from common.training.speed.isolation import keeps_apart
from common.training.speed.unpacking import unpacking

if TYPE_CHECKING:
    from torch import Tensor

FP32 = "sdpa_float32"
UNPACKED = "documents_float32"
VARLEN = "varlen"
USUAL = ("auto", "eager", "sdpa", FP32, UNPACKED, VARLEN, "flex_attention")  # ours, and those that come with torch
BY_POSITIONS = (UNPACKED, VARLEN)  # which find documents by their positions, and answers that share a prompt too
ON_CUDA = (VARLEN, "flex_attention", "flash_attention")  # how those begin that train on nothing else
IN_16_BITS = (VARLEN, "flash_attention")  # how those begin whose kernels compute in nothing wider
LARGEST_HEAD = 256  # of the flash kernels
Varlen = Callable[..., Any]


@contextlib.contextmanager
def with_attention(model: Any, run: RunSettings, device: str, *, in_one_piece: bool = False) -> Iterator[str]:
    """Give a model the attention of `run.attention` for as long as it trains; yield the name of what it is.

    `in_one_piece`: torch compiles it, so that attention had better not leave its graph.
    """
    name_parts(model)
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    before = bare.config._attn_implementation
    name = chosen(bare.config, run, device, in_one_piece=in_one_piece)
    if run.attention == "auto":
        name = _usable(bare, [name, *([FP32] if device == "cpu" and before == "sdpa" else []), before])
    elif name != before:
        _set(bare, name)
    try:
        with contextlib.ExitStack() as stack:
            # Asked now, when all processes are here and no weight is sharded yet. With shards all processes must call
            # layers equally often, and groups of documents differ.
            if not _keeps_apart(bare) and (run.parallelism != "fsdp2" or ranks.size() == 1):
                with contextlib.ExitStack() as trial:
                    trial.enter_context(unpacking(model))
                    if _keeps_apart(bare):
                        stack.push(trial.pop_all())
            yield name
    finally:
        if name != before:
            _set(bare, before)


def chosen(config: Any, run: RunSettings, device: str, *, in_one_piece: bool = False) -> str:
    """Return the attention that a model with this configuration trains with. Raises ConfigError as `check_name`."""
    register()
    if run.attention != "auto":
        check_name(run.attention, device)
        if run.attention == VARLEN and (reason := _no_varlen(config, device)):
            raise ConfigError(f"run.attention={VARLEN}: {reason}. Use run.attention=auto.")
        return run.attention
    before: str = config._attn_implementation
    if before != "sdpa":  # a model that needs another has one
        return before
    if device == "cpu":
        return UNPACKED if not in_one_piece and _sees_whole_documents(config) else FP32
    return before if _no_varlen(config, device) else VARLEN


def _usable(model: Any, names: Sequence[str]) -> str:
    """Give a model the first of some attentions that it lets be set and that keeps documents apart.

    Some architectures do not tell their attention of positions; a mask that transformers makes of them may still do.
    Where none helps it is the last but one if it can be set, which computes as the last one does, else the last.
    """
    *better, last = names
    for name in better:
        with contextlib.suppress(ConfigError):
            _set(model, name)
            if _keeps_apart(model):
                return name
    for name in better[1:]:
        with contextlib.suppress(ConfigError):
            _set(model, name)
            return name
    if model.config._attn_implementation != last:
        _set(model, last)
    return last


def _keeps_apart(model: Any) -> bool:
    """Ask it with an attention of a CPU that goes by positions too, in place of one whose kernels need CUDA."""
    return keeps_apart(model, UNPACKED if model.config._attn_implementation.startswith(IN_16_BITS) else "")


def check_name(name: str, device: str) -> None:
    """Check that there is such an attention, and that it trains on a device. Raises ConfigError.

    Only for a name that is neither ours nor a usual one is transformers asked, which takes a while to load.
    """
    if name not in USUAL:
        register()
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        # Paged ones are for serving: they need a cache.
        known = [*USUAL, *(key for key in ALL_ATTENTION_FUNCTIONS.valid_keys() if not key.startswith("paged|"))]
        if name not in known:
            raise ConfigError(f"run.attention={name}: there is no such attention.{did_you_mean(name, known)}")
    if device != "cuda" and name.startswith(ON_CUDA):
        raise ConfigError(
            f"run.attention={name}: its kernels need CUDA, and this stage trains on {device}. Use run.attention=auto."
        )


def check_precision(name: str, stage: str, precision: str) -> None:
    """Check that an attention computes in a stage's precision. Raises ConfigError."""
    if precision == "float32" and name.startswith(IN_16_BITS):
        raise ConfigError(
            f"run.attention={name}: its kernels compute in 16 bits, and {stage}.precision is float32. Use "
            f"run.attention=auto, or {stage}.precision=bfloat16."
        )


def check_there(name: str) -> None:
    """Check that an attention's package is installed, by giving it to a small model. Raises ConfigError."""
    if name in USUAL:
        return
    register()
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 8, "hidden_size": 16, "intermediate_size": 16}
    _set(LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=1, num_attention_heads=1)), name)


def _no_varlen(config: Any, device: str) -> str:
    """Say why a model cannot train with variable-length attention, or nothing."""
    import torch

    text = config.get_text_config()
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    if device != "cuda":
        return "its kernels need CUDA"
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        return "this GPU has no bfloat16, which its kernels need"
    if size > LARGEST_HEAD or size % 8:
        return f"its kernels take heads of at most {LARGEST_HEAD} in steps of 8, and this model's have {size}"
    if not _sees_whole_documents(config):
        return "this model has layers that do not see whole documents"
    if getattr(text, "attention_dropout", 0.0) or getattr(text, "attn_logit_softcapping", None):
        return "this model's attention has dropout or capped logits, which its kernels have not"
    return ""


def _sees_whole_documents(config: Any) -> bool:
    text = config.get_text_config()
    windows = [kind for kind in getattr(text, "layer_types", None) or () if kind != "full_attention"]
    return not (windows or (getattr(text, "use_sliding_window", True) and getattr(text, "sliding_window", None)))


def _set(model: Any, name: str) -> None:
    try:
        model.set_attn_implementation(name)
    except (ImportError, ValueError) as error:
        reason = f"not available here ({first_line(error)})"
        raise ConfigError(f"run.attention={name}: {reason}. Use run.attention=auto.") from error
    if model.config._attn_implementation != name:
        raise ConfigError(
            f"run.attention={name}: {type(model).__name__} does not let its attention be set. Use run.attention=auto."
        )


@functools.cache
def register() -> None:
    """Make all three attentions known to transformers, by their names."""
    import torch
    from torch.nn.attention.varlen import varlen_attn
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(FP32, fp32_attention)
    AttentionMaskInterface.register(FP32, sdpa_mask)
    # Where documents begin is known by the batch alone, so a compiled layer leaves its graph for these two.
    AttentionInterface.register(UNPACKED, torch.compiler.disable(unpacked_attention))
    AttentionMaskInterface.register(UNPACKED, _mask_of_padding)
    AttentionInterface.register(VARLEN, torch.compiler.disable(functools.partial(varlen_attention, varlen_attn)))
    AttentionMaskInterface.register(VARLEN, _mask_of_padding)


def fp32_attention(
    module: Any, query_BHTD: Tensor, key_BHTD: Tensor, value_BHTD: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Return (B, T, H, D), attended to in float32 and given back in the type of the query."""
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    states = (query_BHTD, key_BHTD, value_BHTD)
    with torch.autocast(query_BHTD.device.type, enabled=False):
        found: Tensor = sdpa_attention_forward(module, *(s.float() for s in states), attention_mask, **options)[0]
    return found.to(query_BHTD.dtype), None


def unpacked_attention(
    module: Any, query_BHTD: Tensor, key_BHTD: Tensor, value_BHTD: Tensor, attention_mask: Tensor | None,
    position_ids: Tensor | None = None, **options: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Return the same as `fp32_attention`: documents, in rows of their own where that pays, see themselves alone.

    A mask (padding) or a cache goes to `fp32_attention`.
    """
    states = (query_BHTD, key_BHTD, value_BHTD)
    documents = _documents_of(query_BHTD, key_BHTD, attention_mask, position_ids)
    if documents is None or documents.alone:
        return fp32_attention(module, *states, attention_mask, **options)
    if not documents.apart_pays:
        return fp32_attention(module, *states, documents.mask, **options)
    query_NHLD, key_NHLD, value_NHLD = (documents.apart(s) for s in states)
    found_NLHD, _ = fp32_attention(module, query_NHLD, key_NHLD, value_NHLD, None, **options)
    return documents.together(found_NLHD), None


def varlen_attention(
    kernel: Varlen, module: Any, query_BHTD: Tensor, key_BHTD: Tensor, value_BHTD: Tensor,
    attention_mask: Tensor | None, scaling: float | None = None, position_ids: Tensor | None = None, **options: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Return (B, T, H, D): documents, which begin where positions do not follow one another, see themselves alone.

    `kernel` is `torch.nn.attention.varlen.varlen_attn`. A mask (padding) or a cache goes to scaled dot product. A
    forward in a wide type is that of `unpacked_attention`.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    dtype = value_BHTD.dtype
    documents = _documents_of(query_BHTD, key_BHTD, attention_mask, position_ids)
    states = (query_BHTD, key_BHTD, value_BHTD)
    if documents is None:
        found: tuple[Tensor, None] = sdpa_attention_forward(module, *states, attention_mask, scaling=scaling, **options)
        return found
    if dtype not in (torch.bfloat16, torch.float16):
        return unpacked_attention(module, *states, None, position_ids, scaling=scaling, **options)
    # Norms of queries and keys may leave them in float32 and values in bfloat16.
    flat = [s.transpose(1, 2).flatten(0, 1).to(dtype) for s in states]
    borders, longest = documents.borders, documents.longest
    if documents.branches:  # the kernel knows documents alone, so that each gets what it goes on from
        sources, borders, places = documents.whole
        flat = [s.index_select(0, sources) for s in flat]
    grouped = key_BHTD.shape[1] != query_BHTD.shape[1]
    attended = kernel(*flat, borders, borders, longest, longest, scale=scaling, window_size=(-1, 0), enable_gqa=grouped)
    if documents.branches:
        attended = attended.index_select(0, places)
    return attended.unflatten(0, documents.shape), None


def _documents_of(
    query_BHTD: Tensor, key_BHTD: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None
) -> Documents | None:
    """Return the documents of whole rows; None where there is a mask (padding) or a cache."""
    if attention_mask is not None or position_ids is None or key_BHTD.shape[2] != query_BHTD.shape[2]:
        return None
    return documents_of(position_ids, len(query_BHTD))


def _mask_of_padding(*sizes: Any, attention_mask: Tensor | None = None, **options: Any) -> Tensor | None:
    """Return no mask where only documents must be kept apart; where there is padding, that of scaled dot product."""
    from transformers.masking_utils import sdpa_mask

    if attention_mask is None and options.get("q_length") == options.get("kv_length"):
        return None
    mask: Tensor | None = sdpa_mask(*sizes, attention_mask=attention_mask, **options)
    return mask
