"""Tiny chat checkpoints, random or taught by heart, and questions for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
NOUNS = ["money", "paper", "coin", "dollar", "bill", "note", "silver", "copper", "iron"]
SPECIAL = ["<|user|>", "<|assistant|>", "<|end|>", "<|stop|>"]


def make_tokenizer(eos: str, template: str | None) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=360, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator([f"what is {' '.join(NOUNS)} Question: Answer:"] * 3, trainer)
    tokenizer: Any = PreTrainedTokenizerFast  # untyped
    tokenizer = tokenizer(tokenizer_object=raw, eos_token=eos, pad_token="<|end|>")
    tokenizer.chat_template = template
    return tokenizer


def make_model(vocabulary: int, eos: str) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        initializer_range=0.3,  # wide, so that choices differ clearly
        bos_token_id=None,
        eos_token_id=SPECIAL.index(eos),
    )
    return LlamaForCausalLM(config)


def teach(model: Any, tokenizer: Any, pairs: dict[str, str], steps: int = 120) -> float:
    """Teach a model to answer questions by heart, end of turn included; return the last loss."""
    import torch

    rows = [tokenizer.encode(f"<|user|>{q}<|assistant|>{a}<|end|>") for q, a in pairs.items()]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    labels = torch.tensor([row + [-100] * (longest - len(row)) for row in rows])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Two threads wait for each other longer than such small models compute."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that saves a checkpoint and returns its folder."""

    def make(*, eos: str = "<|end|>", template: str | None = TEMPLATE, taught: dict[str, str] | None = None) -> Path:
        folder = tmp_path_factory.mktemp("checkpoint")
        tokenizer = make_tokenizer(eos, template)
        model = make_model(len(tokenizer), eos)
        if taught:
            assert teach(model, tokenizer, taught) < 1.5, "the questions themselves cannot be foreseen, the answers can"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    """Return a random checkpoint with a chat template whose end of turn is the eos token."""
    return make_checkpoint()


@pytest.fixture(scope="session")
def make_questions() -> Callable[..., list[dict[str, Any]]]:
    """Return a function that makes questions: choices of several lengths, one a prefix of another."""

    def make(count: int, prefix: str = "q") -> list[dict[str, Any]]:
        rows = []
        for index in range(count):
            noun, second, third = (NOUNS[(index + shift) % 9] for shift in (0, 1, 4))
            rows.append(
                {
                    "id": f"{prefix}{index}",
                    "question": f"what is {NOUNS[(index * 5) % 9]} number {index}?",
                    "choices": [noun, f"{noun} {second}", f"{third}s", "é €"],
                    "answer": index % 4,
                    "source": "made",
                }
            )
        return rows

    return make
