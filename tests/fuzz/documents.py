"""What is edited: the shipped files, a small manifest with its rows, a frozen plan, a tiny checkpoint.

Usage: `manifest()`, `rows()["rows/talks.jsonl"]`, `frozen_plan(folder)`, `checkpoint(folder)`.
"""

from __future__ import annotations

import functools
import gzip
import io
import json
import tempfile
from pathlib import Path
from typing import Any

from common.config.yaml import read_yaml
from tests.conftest import REPOSITORY

SHIPPED = tuple(sorted([*REPOSITORY.glob("domains/*/data.yaml"), *REPOSITORY.glob("tests/real/*.yaml")]))
FOLDER = "chemistry"  # the domain folder of a case
NOUNS = ("river", "stone", "garden", "lamp", "bridge", "window", "harbour", "field", "tower", "market")


def sentence(number: int) -> str:
    """Return a sentence that no other number gives."""
    one, two = NOUNS[number % 10], NOUNS[number // 10 % 10]
    return f"The {one} number {number} lies beside the {two} of town {number * 7}, where {number * 3} people live."


@functools.cache
def rows() -> dict[str, bytes]:
    """Return small row files of every format, by path."""
    texts = [{"text": f"{sentence(n)} {sentence(n + 100)}"} for n in range(40)]
    talks = [{"question": f"Where is {NOUNS[n % 10]} {n}?", "answer": sentence(n + 300)} for n in range(40)]
    named = [{"question": "question", "answer": "answer"}, *talks]
    turns = [{"messages": [{"role": "user", "content": f"Tell of {n}."}, {"role": "assistant", "content": sentence(n)}]}
             for n in range(500, 530)]  # fmt: skip
    pairs = [{"prompt": f"What of {n}?", "chosen": sentence(n), "rejected": f"No {n}."} for n in range(600, 640)]
    exam = [{"question": f"Which town has {n} lamps?", "choices": ["one", "two", "three", "four"], "answer": n % 4}
            for n in range(700, 712)]  # fmt: skip
    return {
        "rows/texts.jsonl": _lines(texts),
        "rows/talks.jsonl": _lines(talks),
        "rows/talks.json": json.dumps({"data": talks}).encode(),
        "rows/talks.csv": "".join(f'"{row["question"]}","{row["answer"]}"\n' for row in named).encode(),
        "rows/talks.tsv": "".join(f"{row['question']}\t{row['answer']}\n" for row in named).encode(),
        "rows/turns.jsonl": _lines(turns),
        "rows/pairs.jsonl": _lines(pairs),
        "rows/exam.jsonl": _lines(exam),
        "rows/notes.txt": "\n\n".join(row["text"] for row in texts).encode(),
        "rows/talks.jsonl.gz": gzip.compress(_lines(talks), mtime=0),
        "rows/talks.jsonl.zst": _zstandard(_lines(talks)),
        "rows/talks.parquet": _table(talks, "parquet"),
        "rows/talks.arrow": _table(talks, "arrow"),
    }  # fmt: skip


def _lines(values: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def _zstandard(data: bytes) -> bytes:
    import pyarrow as pa

    return pa.compress(data, "zstd", asbytes=True)  # type: ignore[no-any-return]  # pyarrow has no types


def _table(values: list[dict[str, Any]], form: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table, stream = pa.Table.from_pylist(values), io.BytesIO()
    if form == "parquet":
        pq.write_table(table, stream)
    else:
        with pa.ipc.new_file(stream, table.schema) as writer:
            writer.write_table(table)
    return stream.getvalue()


def manifest(talks: str = "rows/talks.jsonl") -> dict[str, Any]:
    """Return a manifest over the small rows, with most of the keys that a manifest may have."""
    licence = {"licence": "mit"}
    return {
        "title": "Towns",
        "settings": {"sft": {"tokens": 4096, "train": {"learning_rate": 1e-3}}, "evaluate": {"limit": 8}},
        "profiles": {"tiny": {"base": {"tokens": 8192}, "cpt": {"tokens": 4096, "sequence_length": 128}}},
        "sources": [
            {"id": "all", "role": "pretrain", "path": "rows/notes.txt", "unit": "paragraph", **licence},
            {"id": "texts", "role": "cpt", "path": "rows/texts.jsonl", "columns": {"text": "text"}, "heldout": 0.1,
             "weight": 2.0, "language": "en", "note": "of towns", "evidence": "made here", **licence},
            {"id": "general", "role": "replay", "path": ["rows/turns.jsonl"], "turns": "fix", "limit": 20, **licence},
            {"id": "talks", "role": "sft", "path": talks, "columns": {"question": "question", "answer": "answer"},
             "skip": 1, "take": 30, "every": 1, "longest": 4000, "where": {}, **licence},
            {"id": "pairs", "role": "preference", "path": "rows/pairs.jsonl", **licence},
            {"id": "exam", "role": "eval", "side": "domain", "path": "rows/exam.jsonl", "index_from": 0, **licence},
            {"id": "hub", "role": "sft", "hub": "owner/name", "split": "train", "enabled": False,
             "revision": "0" * 40, "columns": {"messages": "messages"}, **licence},
        ],
    }  # fmt: skip


@functools.cache
def shipped() -> tuple[dict[str, Any], ...]:
    """Return the shipped manifests."""
    return tuple(read_yaml(path) for path in SHIPPED)


@functools.cache
def domain() -> dict[str, bytes]:
    """Return the files of the domain that `new-domain` makes, with an exam file that names a function."""
    from common.cli.new_domain import new_domain

    with tempfile.TemporaryDirectory() as folder:
        made, _ = new_domain(FOLDER, Path(folder), REPOSITORY)
        root = Path(folder) / FOLDER
        assert Path(made).name == FOLDER
        files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return files | {
        "eval/evil.py": b"open('owned', 'w').close()\n\ndef mark(x=None, **_):\n    return open('owned', 'w')\n",
        "eval/rewards.py": b"open('owned', 'w').close()\n",
        "eval/own.yaml": b"task: own\ndataset_path: json\ndataset_kwargs: {data_files: x.jsonl}\ntest_split: train\n"
        b"doc_to_text: !function evil.mark\ndoc_to_target: answer\nmetric_list: [{metric: acc}]\n",
    }


@functools.cache
def pipelines() -> dict[str, bytes]:
    """Return the shipped pipelines and profiles, by path."""
    paths = [*REPOSITORY.glob("pipelines/*.yaml"), *REPOSITORY.glob("pipelines/profiles/*.yaml")]
    return {path.relative_to(REPOSITORY).as_posix(): path.read_bytes() for path in sorted(paths)}


@functools.cache
def frozen_plan() -> dict[str, Any]:
    """Return the frozen plan of a medical run."""
    from common.config.resolve import resolve
    from common.engine.frozen_plan import frozen

    return frozen(resolve({"domain": "medical", "out": "out"}, REPOSITORY))


@functools.cache
def checkpoint() -> dict[str, bytes]:
    """Return the files of a checkpoint of 40,000 parameters with a chat template, by name."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    from tests.models.tokenizers import qwen

    tokenizer = qwen()
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=1024, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, max_shard_size="40KB")
        tokenizer.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


@functools.cache
def gguf_file() -> bytes:
    """Return a tiny model as a GGUF file."""
    from tests.models.test_gguf_file import write_gguf

    with tempfile.TemporaryDirectory() as folder:
        write_gguf(Path(folder) / "model.gguf")
        return (Path(folder) / "model.gguf").read_bytes()
