"""What a token budget leaves unread is not counted, neither as kept nor as dropped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from common.data.accounting import MOST_OVERLAPS, RowCount
from common.data.exam_passages import Passage
from common.models.tokenizer import train_tokenizer
from common.stage import StageContext
from common.store.artifacts import Artifact
from common.training.rows.reader import SAMPLED_FILES, Accounts, Reader, read_role


class Texts:
    """A corpus of a hundred texts, of whose source as many were empty."""

    def __init__(self) -> None:
        self.read = RowCount("s", "cpt", rows_in=200, rows_out=100, dropped={"empty text": 100})

    def rows(self, role: str) -> Iterator[dict[str, Any]]:
        return iter({"text": f"a text of number {number}", "source": "s"} for number in range(100))

    def counts(self, role: str) -> dict[str, RowCount]:
        return {"s": self.read}

    def exam_roles(self, role: str) -> tuple[str, ...]:
        return ()


def context_of(corpus: Texts, *benchmarks: Passage) -> StageContext:
    facts = SimpleNamespace(
        corpus=corpus, config=SimpleNamespace(seed=0), stage="cpt", benchmarks=benchmarks, inputs={}
    )
    return cast(StageContext, facts)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["a text of number one, and of number two"], 300, 256)


@pytest.mark.parametrize(("share", "dropped"), [(0.25, 25), (None, 100)])
def test_drops_of_the_corpus_are_shared_out(share: float | None, dropped: int, tokenizer: Any) -> None:
    context = context_of(Texts())

    def read(budget: int | None) -> Reader:
        reader = Reader(context, tokenizer, "cpt", chat_only=False)
        list(reader.tokens(assistant_only=False, sequence_length=128, budget=budget))
        return reader

    whole = read(None)
    reader = whole if share is None else read(round(whole.num_tokens * share))
    (count,) = reader.finish(1.0)
    assert count.dropped["empty text"] == pytest.approx(dropped, abs=2)
    assert count.rows_in == count.rows_out + count.num_dropped
    assert count.num_dropped / count.rows_in == pytest.approx(0.5, abs=0.02)


def test_a_held_out_text_in_other_blanks_or_case_is_a_copy() -> None:
    class Heldout(Texts):
        def rows(self, role: str) -> Iterator[dict[str, Any]]:
            own = ["The tide\nturns  twice.", "the tide turns twice.", "The moon pulls."]
            return iter({"text": text, "source": "s"} for text in (own if role == "cpt" else ["The tide turns twice."]))

        def exam_roles(self, role: str) -> tuple[str, ...]:
            return ("text_domain",)

    context = context_of(Heldout())
    reader = Reader(context, cast(Any, None), "cpt", chat_only=False)  # nothing is tokenised
    assert [row["text"] for row in reader.raw()] == ["The moon pulls."]
    assert reader.accounts["s"].dropped == {"exam overlap": 2}


def test_what_a_benchmark_asks_is_left_out_counted_and_listed_with_both_texts() -> None:
    context = context_of(Texts(), Passage("Was it a text of number 7?", "quiz", "3"))
    reader = Reader(context, cast(Any, None), "cpt", chat_only=False)
    assert len(list(reader.raw())) == 100  # the question is longer than the row
    planted = Passage("A TEXT - of Number (7), said the miller", "quiz", "3")

    class Asked(Texts):
        def rows(self, role: str) -> Iterator[dict[str, Any]]:
            yield from super().rows(role)
            for number in range(MOST_OVERLAPS + 1):
                yield {"text": f"{number} times a text of number 7, said the miller", "source": "s"}

    reader = Reader(context_of(Asked(), planted), cast(Any, None), "cpt", chat_only=False)
    assert len(list(reader.raw())) == 100
    count = reader.accounts["s"]
    assert count.dropped == {"exam overlap": MOST_OVERLAPS + 1}
    assert len(count.overlaps) == MOST_OVERLAPS
    assert "quiz 3: 'A TEXT - of Number (7), said the miller'; in the row: 'a text of number 7" in count.overlaps[0]
    assert "overlaps" not in RowCount("s", "cpt").as_dict()


@pytest.mark.parametrize("role", ["sft", "preference", "prompts"])
def test_rows_that_a_model_wrote_pass_too(role: str, tmp_path: Path) -> None:
    """Also those of a round of expert iteration, which come the same way."""
    lines = [{"messages": [{"role": "user", "content": text}], "source": "s"} for text in ("One.", "Two?", "Three.")]
    asked = Passage("Two of the towers have no lamp in winter, or have they?", "quiz", "1")
    lines[1]["messages"] = [{"role": "assistant", "content": f"I say: {asked.text}"}]
    (tmp_path / SAMPLED_FILES[role]).write_text("".join(json.dumps(line) + "\n" for line in lines))
    context = context_of(Texts(), asked)
    context.inputs["sample"] = Artifact(tmp_path, {"kind": "sample", "stage": "sample"})
    accounts = Accounts(role)
    assert len(list(read_role(context, role, accounts))) == 2
    assert accounts["s"].dropped == {"exam overlap": 1}
