"""Every causal architecture of transformers, in small and with random weights, through a whole chain.

`just bench architectures` takes about two hours on one core; `names=mamba,gpt_oss` takes some. Of those that read
images or sound too, the whole model is the checkpoint.

Each line says how the chain ended: `through`, or the sentence with which the product refused it. A traceback is a miss.
Those that cannot be built by the sizes below are left out, with a line each.
"""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
import tempfile
import time
import traceback
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from common.config.resolve import resolve
from common.console import Console
from common.engine.run import execute
from common.errors import RecipeError
from common.models.language_part import SAME_ON_TEXT, part_of
from tests.conftest import REPOSITORY
from tests.end_to_end.test_families import ROLES, WORDS, Family, make_tokenizer

SECONDS = 240  # for one chain
MOST_PARAMETERS = 20_000_000
PLAIN = Family("any", ["<|endoftext|>", "<|pad|>", "<start>", "</start>"], "<|endoftext|>", ROLES, pad="<|pad|>",
               bos="<|endoftext|>")  # fmt: skip
# Sizes by the names that configurations have for them.
SMALL: dict[str, int] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "embed_dim", "embedding_size", "word_embed_proj_dim",
                     "lru_width", "moe_intermediate_size", "shared_expert_intermediate_size", "expert_dim",
                     "moe_shared_expert_intermediate_size", "expert_ffn_hidden_size"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner", "dim_ff", "d_ff", "dff",
                     "sliding_window", "attention_window_size", "window_size"), 64),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers",
                     "num_key_value_heads", "num_kv_heads", "num_experts_per_tok", "num_experts_per_token",
                     "moe_top_k", "moe_k", "moe_topk", "top_k_experts", "linear_num_key_heads",
                     "linear_num_value_heads", "index_n_heads"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads",
                     "decoder_attention_heads", "num_experts", "num_local_experts", "n_routed_experts",
                     "moe_num_experts", "time_step_rank", "mamba_dt_rank", "conv_kernel", "rotary_dim"), 4),
    **dict.fromkeys(("head_dim", "global_head_dim", "attention_head_dim", "qk_rope_head_dim", "qk_nope_head_dim",
                     "v_head_dim", "state_size", "mamba_d_state", "mamba_n_heads", "mamba_d_head", "mamba_num_heads",
                     "mamba_head_dim", "linear_key_head_dim", "linear_value_head_dim", "index_head_dim",
                     "hidden_size_per_layer_input"), 8),
    **dict.fromkeys(("qk_head_dim", "q_lora_rank", "kv_lora_rank", "index_topk"), 16),
    **dict.fromkeys(("n_groups", "num_groups", "n_group", "topk_group", "first_k_dense_replace", "num_shared_experts",
                     "n_shared_experts"), 1),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "context_length"), 512),
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {  # of hybrid ones, so that one of two layers attends
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "bamba": {"attn_layer_indices": [1]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "nemotron_h": {"layers_block_type": ["mamba", "attention"]},
    "mamba2": {"num_heads": 8},
    "falcon_h1": {"mamba_d_ssm": 64},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "gemma3n_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "num_kv_shared_layers": 0,
        "activation_sparsity_pattern": [0.95, 0.0],
    },
    "cohere_compass_text": {"layer_types": ["sliding_attention", "full_attention"]},
    # What these leave open for a file to say.
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1},
    "zaya": {"num_experts_per_tok": 1},
    **{name: {"head_dim": 8} for name in ("hunyuan_v1_dense", "hunyuan_v1_moe", "ministral")},
    "nemotron": {"num_key_value_heads": 2, "head_dim": 8},
    "bailing_hybrid": {"partial_rotary_factor": 1.0},
    "xlstm": {"num_heads": 2},
}
LAYERS = ("layer_types", "mlp_layer_types", "layers_block_type", "block_types")  # lists of one name for each layer


SENSES: dict[str, int] = {  # sizes of what reads images or sound
    **dict.fromkeys(("hidden_size", "out_hidden_size", "embed_dim", "output_dim", "vision_output_dim"), 32),
    "intermediate_size": 64, "image_size": 28, "patch_size": 14,
    **dict.fromkeys(("num_hidden_layers", "depth"), 2), **dict.fromkeys(("num_attention_heads", "num_heads"), 4),
}  # fmt: skip


def small(name: str, tokenizer: Any) -> Any:
    """Return a model of an architecture with two layers and random weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMultimodalLM

    usual = AutoConfig.for_model(name)
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("eos", "bos", "pad")}
    torch.manual_seed(0)
    if usual.get_text_config() is usual:
        return AutoModelForCausalLM.from_config(type(usual)(**_sizes(usual), **ids, vocab_size=len(tokenizer)))
    parts: dict[str, Any] = {}
    for key, kind in usual.sub_configs.items():
        if (part := getattr(usual, key, None) or (kind() if kind is not AutoConfig else None)) is not None:
            is_text = part is usual.get_text_config()
            sizes = {**_sizes(part), **ids, "vocab_size": len(tokenizer)} if is_text else _known(part, SENSES)
            parts[key] = {**sizes, "model_type": part.model_type}
            if part.model_type in (*SAME_ON_TEXT, "qwen3_vl_moe_text"):  # of heads of 8
                rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 1, 1]}
                parts[key]["rope_parameters"] = rope
    return AutoModelForMultimodalLM.from_config(type(usual)(**parts, **ids))


def _known(config: Any, sizes: dict[str, int]) -> dict[str, Any]:
    """Return those sizes that a configuration has."""
    known = config.to_dict()
    return {key: size for key, size in sizes.items() if isinstance(known.get(key), int)}


def _sizes(config: Any) -> dict[str, Any]:
    """Return the sizes of a language model of a kind."""
    known, sizes = config.to_dict(), _known(config, SMALL)
    if "kv_lora_rank" in known:  # whose heads share no keys
        sizes["num_key_value_heads"] = SMALL["num_attention_heads"]
    for key in LAYERS:
        if kinds := list(dict.fromkeys(kind for kind in known.get(key) or () if isinstance(kind, str))):
            sizes[key] = (kinds * 2)[:2]
    sizes |= OWN.get(config.model_type, {})
    return sizes | ({"is_decoder": True} if "is_decoder" in known else {})


def chain(name: str, peft: str, to: Connection) -> None:
    """Take one architecture through the chain and send how that ended, and whether it is as it should be."""
    from transformers import AutoTokenizer

    with contextlib.redirect_stderr(io.StringIO()), tempfile.TemporaryDirectory() as folder:
        tokenizer, root = make_tokenizer(PLAIN), Path(folder)
        try:
            model = small(name, tokenizer)
            assert model.num_parameters() <= MOST_PARAMETERS
        except Exception as error:
            to.send(("not built", f"{type(error).__name__} {error}"))
            return
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
        if (part := part_of(model.config)) is not None:  # whose kind may read a tokenizer's file by rules of its own
            AutoTokenizer.from_pretrained(root / name, config=part).save_pretrained(root / name)
        words = {**WORDS, "pipeline": "full", "model.path": str(root / name), "out": str(root / "out")}
        if peft != "full":
            words |= {f"{stage}.peft": peft for stage in ("cpt", "sft", "dpo")}
        try:
            execute(resolve(words, REPOSITORY), Console("quiet"))
            to.send(("through", ""))
        except RecipeError as error:
            to.send(("refused", str(error).replace(str(root), "…")))
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            to.send(("traceback", f"{type(error).__name__} {error} ({Path(frame.filename).name}, line {frame.lineno})"))


def quiet_chain(name: str, peft: str, to: Connection) -> None:
    """Take one architecture through the chain in a process of its own, which says nothing else."""
    import transformers

    logging.disable(logging.WARNING)
    transformers.utils.logging.set_verbosity_error()
    chain(name, peft, to)


def main(names: str = "", peft: str = "full") -> int:
    """Print a line for each architecture, and how many ended how. Return the number of tracebacks."""
    import transformers
    from transformers.models.auto import modeling_auto as known

    context, ended = multiprocessing.get_context("forkserver"), Counter[str]()
    context.set_forkserver_preload([__name__, "trl", "transformers.models.auto.modeling_auto"])  # once for all chains
    print(f"transformers {transformers.__version__}, peft={peft}")
    every = {*known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *known.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES}
    for name in filter(None, names.split(",")) if names else sorted(every):
        began = time.monotonic()
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=quiet_chain, args=(name, peft, theirs))
        process.start()
        theirs.close()
        try:
            found, why = ours.recv() if ours.poll(SECONDS) else ("too slow", f"after {SECONDS} s")
        except EOFError:
            found, why = "traceback", "its process died"
        process.kill()
        process.join()
        ended[found] += 1
        print(f"{name:28} {found:10} {time.monotonic() - began:4.0f} s  {why}".rstrip(), flush=True)
    print(", ".join(f"{number} {found}" for found, number in ended.most_common()))
    return ended["traceback"]
