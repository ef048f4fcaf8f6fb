"""What one would write with datatrove alone to clean documents: its readers, filters, MinHash and decontamination.

Usage: `left = script(folder, work, buckets=14, hashes=8)()`, of a folder that `tests.bench.documents` wrote.

It is built as datatrove's examples/fineweb.py, in one process. It is made as quick as it can be: words are split at
blanks, since datatrove's own tokenizers need data that are not installed, and what it writes is not compressed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from common.data.splitting import splitter
from tests.bench.documents import DOCUMENTS, EXAM

RUN = 13  # words that an exam's question and a document share


def script(folder: Path, work: Path, buckets: int, hashes: int, *, our_words: bool = False) -> Callable[[], int]:
    """Return what cleans the documents, and tells how many are left."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.decont import n_grams as decont
    from datatrove.pipeline.dedup import minhash
    from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter
    from datatrove.utils.hashing import HashConfig
    from loguru import logger

    logger.remove()
    language: Any = splitter() if our_words else _blanks()
    hashing = HashConfig(precision=64, hash_fc="sha1")  # xxhash from 4 on refuses the text that datatrove gives it
    config = minhash.MinhashConfig(num_buckets=buckets, hashes_per_bucket=hashes, hash_config=hashing)
    exam = decont.NGramsDecontConfig(n_grams=RUN, hash_config=hashing)
    at = {name: str(work / name) for name in ("filtered", "signatures", "pairs", "remove", "exam", "left", "logs")}

    def run(*steps: Any, tasks: int = 1) -> None:
        logs = f"{at['logs']}/{len(list(Path(work).glob('logs/*')))}"
        LocalPipelineExecutor(list(steps), tasks=tasks, workers=1, logging_dir=logs).run()

    def clean() -> int:
        run(
            JsonlReader(str(folder), glob_pattern=DOCUMENTS),
            GopherQualityFilter(language=language),
            GopherRepetitionFilter(language=language),
            JsonlWriter(at["filtered"], compression=None),
        )
        run(JsonlReader(at["filtered"]), minhash.MinhashDedupSignature(at["signatures"], config, language=language))
        run(minhash.MinhashDedupBuckets(at["signatures"], at["pairs"], config=config), tasks=buckets)
        run(minhash.MinhashDedupCluster(at["pairs"], at["remove"], config=config))
        guard = decont.NGramsDecontFilter(at["exam"], exam, language=language)
        _write_index(folder / EXAM, Path(at["exam"]), guard)
        run(
            JsonlReader(at["filtered"]),
            minhash.MinhashDedupFilter(at["remove"]),
            guard,
            JsonlWriter(at["left"], compression=None),
        )
        return sum(1 for path in Path(at["left"]).iterdir() for _ in path.open("rb"))

    return clean


def _write_index(exam: Path, folder: Path, guard: Any) -> None:
    """Write the runs of the exam's questions. datatrove's own step needs lighteval, whose tasks it loads."""
    from datatrove.utils.text import ngrams, simplify_text

    hashes: set[int] = set()
    for line in exam.read_text(encoding="utf-8").splitlines():
        text = simplify_text(json.loads(line)["question"], guard.config.norm_config)
        hashes.update(guard.hash_func(" ".join(run)) for run in ngrams(guard.tokenizer.word_tokenize(text), RUN))
    folder.mkdir(parents=True, exist_ok=True)
    np.array(sorted(hashes), dtype=guard.config.hash_config.np_descr).tofile(folder / "exam.index.hashes")


def _blanks() -> Any:
    """Return datatrove's WordTokenizer that splits at blanks, which is the quickest."""
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Blanks(WordTokenizer):  # type: ignore[misc]  # datatrove has no types
        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

        def sent_tokenize(self, text: str) -> list[str]:
            return text.splitlines()

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return [(0, len(text))]

    return Blanks()
