"""Checkpoints of the families in use, in small and with random weights, each through a whole chain.

The tokenizers and templates have the shape of what each family publishes, and its quirks: padding that stops an answer,
or none; several stop tokens; sampling defaults; spare rows; no template. `python -m tests.end_to_end.test_families`
prints what was adjusted in each.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from common.config.resolve import resolve
from common.console import Console
from common.engine.run import execute
from common.errors import RecipeError
from common.models.tokenizer import common_words
from tests.conftest import QUICK, REPOSITORY, long
from tests.docs.test_pages import rows_of
from tests.models.test_turns import ALTERNATING, BRACKETS, ENDED, OWN_SYSTEM, THINKING

SHAPE = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
WORDS = {
    **{key: value for key, value in QUICK.items() if not key.startswith("base.")}, "cpt.tokens": "4096",
    "sft.tokens": "4096", "dpo.epochs": "0.02", "evaluate.limit": "6", "evaluate.text_documents": "3",
    "evaluate.answer_tokens": "8", "domain": "medical", "run.device": "cpu", "model.licence": "mit",
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """What a family publishes: its classes, its special tokens and what stands in its files."""

    model: str  # name of the configuration in transformers
    special: Sequence[str]  # in the order of their ids
    eos: str
    template: str | None
    shape: dict[str, Any] = field(default_factory=lambda: SHAPE)
    pad: str | None = None
    bos: str | None = None
    begins: bool = False  # whether the tokenizer puts bos before a document
    unk: str | None = None
    stops: Sequence[str] = ()  # of generation_config.json, beside eos
    sampled: bool = False  # sampling defaults in generation_config.json
    spare: int = 0  # rows without a token
    pieces: bool = False  # words begin in "▁", as of SentencePiece, else byte-level
    shard: str = "5GB"
    expected: Sequence[str] = ()  # beginnings of the lines that say what was adjusted


HEADERS = (  # in the shape of Llama 3's
    "{{ bos_token }}{% for m in messages %}<start>{{ m['role'] }}</start>\n\n{{ m['content'] | trim }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<start>assistant</start>\n\n{% endif %}"
)
ROLES = (  # in the shape of OLMo's and Granite's
    "{% for m in messages %}<start>{{ m['role'] }}</start>{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<start>assistant</start>{% endif %}"
)
TURN = ["<start>", "<end>"]
FAMILIES = {
    "llama": Family(
        "Llama", ["<bos>", "<eos>", *TURN, "</start>", "<|reserved_0|>"], "<end>", HEADERS, bos="<bos>", begins=True,
        stops=["<eos>"], sampled=True,
        expected=["padding is '<|reserved_0|>', since there was none", "generation is greedy, without temperature 0.6"],
    ),
    "smollm": Family(
        "Llama", ["<|endoftext|>", *TURN], "<end>", OWN_SYSTEM, {**SHAPE, "tie_word_embeddings": True}, pad="<end>",
        bos="<start>", unk="<|endoftext|>", expected=["padding is '<|endoftext|>', since '<end>' also stops an answer"],
    ),
    "qwen2": Family(
        "Qwen2", ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_pad|>"], "<|endoftext|>", None,
        {**SHAPE, "tie_word_embeddings": True}, pad="<|endoftext|>", spare=32,
        expected=["no chat template of its own; it gets chatml, whose tokens it has"],
    ),
    "qwen3": Family(
        "Qwen3", ["<|endoftext|>", *TURN, "<think>", "</think>", "<|fim_pad|>"], "<end>", THINKING,
        {**SHAPE, "head_dim": 16}, pad="<|endoftext|>", stops=["<|endoftext|>"], sampled=True, spare=32,
        expected=["padding is '<|fim_pad|>', since '<|endoftext|>' also", "generation is greedy"],
    ),
    "gemma2": Family(
        "Gemma2", ["<pad>", "<eos>", "<bos>", "<unk>", *TURN], "<eos>", ALTERNATING,
        {**SHAPE, "head_dim": 16, "sliding_window": 64}, pad="<pad>", bos="<bos>", begins=True, unk="<unk>",
        stops=["<end>"], pieces=True, expected=["its chat template has no system turn"],
    ),
    "gemma3": Family(
        "Gemma3Text", ["<pad>", "<eos>", "<bos>", "<unk>", *TURN], "<eos>", ALTERNATING,
        {**SHAPE, "head_dim": 16, "sliding_window": 64}, pad="<pad>", bos="<bos>", begins=True, unk="<unk>",
        pieces=True,
        expected=["its chat template has no system turn", "an answer also stops at '<end>', which ends a turn"],
    ),
    "mistral": Family(
        "Mistral", ["<unk>", "<s>", "</s>"], "</s>", BRACKETS, {**SHAPE, "sliding_window": 64}, bos="<s>", begins=True,
        unk="<unk>", pieces=True, shard="40KB",
        expected=["its chat template has no system turn", "padding is '<unk>', since there was none"],
    ),
    "phi": Family(
        "Phi", ["<|endoftext|>"], "<|endoftext|>", None, bos="<|endoftext|>", unk="<|endoftext|>", spare=32,
        expected=["no chat template of its own; it gets plain", "padding is the new token '<|padding|>' in a spare"],
    ),
    "phi3": Family(
        "Phi3", ["<unk>", "<s>", "<|endoftext|>", *TURN], "<|endoftext|>", ENDED, pad="<|endoftext|>", bos="<s>",
        unk="<unk>", stops=["<end>"], pieces=True, expected=["padding is '<unk>', since '<|endoftext|>' also"],
    ),
    "gpt2": Family(
        "GPT2", ["<|endoftext|>"], "<|endoftext|>", None, GPT2, bos="<|endoftext|>", unk="<|endoftext|>",
        expected=["no chat template of its own; it gets plain", "padding is the new token '<|padding|>', since"],
    ),
    "pythia": Family(
        "GPTNeoX", ["<|endoftext|>", "<|padding|>"], "<|endoftext|>", None, bos="<|endoftext|>", unk="<|endoftext|>",
        spare=32, shard="40KB",
        expected=["no chat template of its own; it gets plain", "padding is '<|padding|>', since there was none"],
    ),
    "olmo2": Family(
        "Olmo2", ["<|endoftext|>", "<|pad|>", "<start>", "</start>"], "<|endoftext|>", ROLES, pad="<|pad|>",
        bos="<|endoftext|>",
    ),
    "granite": Family(
        "Granite", ["<|end_of_text|>", "<start>", "</start>", "<reserved>"], "<|end_of_text|>", ROLES,
        {**SHAPE, "tie_word_embeddings": True}, pad="<|end_of_text|>", bos="<|end_of_text|>",
        expected=["padding is '<reserved>', since"],
    ),
    "mixtral": Family(
        "Mixtral", ["<unk>", "<s>", "</s>"], "</s>", BRACKETS,
        {**SHAPE, "num_local_experts": 4, "num_experts_per_tok": 2, "output_router_logits": True}, bos="<s>",
        begins=True, unk="<unk>", pieces=True,
        expected=["its chat template has no system turn", "padding is '<unk>', since there was none"],
    ),
}  # fmt: skip
EVERY_RUN = ("gemma2",)  # with several stops and no system turn


def make_tokenizer(family: Family) -> Any:
    """Return a tokenizer of 600 pieces, in the family's way of writing words."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = list(family.special)
    if family.pieces:
        core = Tokenizer(models.BPE(byte_fallback=True, unk_token=family.unk, fuse_unk=True))
        core.normalizer = normalizers.Replace(" ", "▁")
        core.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
        core.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )  # fmt: skip
        options: dict[str, Any] = {"special_tokens": [*special, *(f"<0x{byte:02X}>" for byte in range(256))]}
    else:
        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
        options = {"special_tokens": special, "initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
    core.train_from_iterator(common_words(), trainers.BpeTrainer(vocab_size=600, show_progress=False, **options))
    if family.begins:
        assert family.bos is not None
        pair = (family.bos, core.token_to_id(family.bos))
        core.post_processor = processors.TemplateProcessing(single=f"{family.bos} $A", special_tokens=[pair])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=family.eos, pad_token=family.pad, bos_token=family.bos, unk_token=family.unk,
        additional_special_tokens=special,
    )  # fmt: skip
    tokenizer.chat_template = family.template
    return tokenizer


def publish(family: Family, folder: Path) -> None:
    """Write a checkpoint as the family publishes one."""
    import torch
    import transformers

    tokenizer = make_tokenizer(family)
    config = getattr(transformers, f"{family.model}Config")(
        vocab_size=len(tokenizer) + family.spare, **family.shape, eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    stops = [tokenizer.eos_token_id, *map(tokenizer.convert_tokens_to_ids, family.stops)]
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=stops if family.stops else stops[0], bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id, **({"do_sample": True, "temperature": 0.6} if family.sampled else {}),
    )  # fmt: skip
    model.save_pretrained(folder, max_shard_size=family.shard)
    tokenizer.save_pretrained(folder)


def run_chain(name: str, root: Path) -> list[str]:
    """Take a family through the whole chain. Return what the base stage adjusted."""
    folder = root / name
    publish(FAMILIES[name], folder)
    words = {**WORDS, "pipeline": "full", "model.path": str(folder), "out": str(root / "out")}
    outcome = execute(resolve(words, REPOSITORY), Console("quiet"))
    adjusted: list[str] = outcome.artifacts["base"].manifest["sources"][0]["adjusted"]
    return adjusted


def stops_by_itself(folder: Path) -> bool:
    """Whether plain transformers ends an answer at the token that ends a turn in the published template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessorList

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    question = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "What is it?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    whole = tokenizer.apply_chat_template([*question, {"role": "assistant", "content": "it"}], return_dict=False)
    word, *_, = (
        token for token in whole[prompt["input_ids"].shape[1] :] if token in tokenizer.added_tokens_decoder
        and "think" not in tokenizer.convert_ids_to_tokens(token)
    )  # fmt: skip

    def end(ids_BT: torch.Tensor, logits_BV: torch.Tensor) -> torch.Tensor:
        """Make the third token of the answer the one that ends a turn, and no token before it one that stops."""
        third = ids_BT.shape[1] == prompt["input_ids"].shape[1] + 2
        forced_BV = torch.full_like(logits_BV, -torch.inf)
        forced_BV[:, word if third else int(prompt["input_ids"][0, -2])] = 0.0
        return forced_BV

    (written,) = model.generate(**prompt, max_new_tokens=8, logits_processor=LogitsProcessorList([end]))
    length = int(prompt["input_ids"].shape[1])
    return len(written) == length + 3 and int(written[-1]) == word


@pytest.mark.parametrize("name", [name if name in EVERY_RUN else long(name) for name in FAMILIES])
def test_a_family_goes_through_the_chain_and_its_published_model_stops(name: str, tmp_path: Path) -> None:
    adjusted = run_chain(name, tmp_path)
    expected = FAMILIES[name].expected
    assert len(adjusted) == len(expected), adjusted
    assert all(line.startswith(start) for line, start in zip(adjusted, expected, strict=True)), adjusted
    published = tmp_path / "out" / "models" / "medical" / "latest"
    assert json.loads((published / "config.json").read_text(encoding="utf-8"))["pad_token_id"] is not None
    assert stops_by_itself(published)


def test_the_families_of_the_documents_are_those_that_are_tested() -> None:
    text = (REPOSITORY / "docs" / "your-own-data.md").read_text(encoding="utf-8")
    assert set(FAMILIES) == set(rows_of(text, "family"))


def main(names: Sequence[str]) -> None:
    """Print a table of the families: what was adjusted, and whether the chain came through."""
    print("| family | adjusted where the chain begins | through the chain, stops |\n|---|---|---|")
    for name in names or FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            try:
                adjusted = run_chain(name, Path(folder))
                passed = "yes" if stops_by_itself(Path(folder) / "out" / "models" / "medical" / "latest") else "no stop"
            except RecipeError as error:
                adjusted, passed = [], f"no: {error}"
        print(f"| {name} | {'; '.join(adjusted) or '-'} | {passed} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
