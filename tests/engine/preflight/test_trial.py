"""Rows are tried before the first stage: what a stage would stop for stops the run there, in the stage's words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.cli.main import main
from common.config.resolve import resolve
from common.console import Console
from common.engine.plan import make_plan
from common.engine.preflight.trial import try_rows
from common.engine.settle import settled
from common.errors import ContractError, DataError
from common.store.artifacts import write_json
from tests.conftest import REPOSITORY
from tests.end_to_end.test_families import FAMILIES, publish

Row = dict[str, Any]
Try = Callable[..., list[str]]
COLUMNS: dict[str, Any] = {
    "sft": {"messages": "messages"}, "cpt": {"text": "text"}, "prompts": {"question": "q", "answer": "a"},
    "preference": {"prompt": "p", "chosen": "c", "rejected": "r"},
}  # fmt: skip
LENGTH = {"sequence_length": 128, "batch_tokens": 1024}
SETTINGS = {
    "sft": {**LENGTH, "limits": {"dropped": 0.05}}, "cpt": LENGTH,
    "dpo": {"sequence_length": 128}, "grpo": {"prompt_tokens": 128, "answer_tokens": 32},
}  # fmt: skip
REFUSES_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' and loop.index > 1 %}{{ raise_exception('no system') }}"
    "{% endif %}<start>{{ m['role'] }}\n{{ m['content'] | trim }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<start>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    publish(FAMILIES["smollm"], folder)
    return folder


def chat(number: int, *before: Row, answer: str = "a thing") -> Row:
    turns = [{"role": "user", "content": f"What is gate {number}?"}, {"role": "assistant", "content": answer}]
    return {"messages": [*before, *turns]}


def pair(number: int, chosen: str = "yes, it is", rejected: str = "no") -> Row:
    return {"p": f"Is it gate {number}?", "c": chosen, "r": rejected}


def lines(folder: Path, name: str, rows: Sequence[Row]) -> None:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def attempt(tmp_path: Path, checkpoint: Path) -> Try:
    """Try rows of some roles on a checkpoint, through the plan of a run."""

    def attempt(pipeline: str = "sft-only", model: Path | None = checkpoint, **rows: Any) -> list[str]:
        words = {key.replace("__", "."): value for key, value in rows.items() if isinstance(value, str)}
        roles = {role: found for role, found in rows.items() if isinstance(found, list)}
        for role, found in roles.items():
            lines(tmp_path, f"{role}.jsonl", found)
        sources = [
            {"id": role, "role": role, "path": f"{role}.jsonl", "columns": COLUMNS[role], "licence": "mit"}
            for role in roles
        ]
        write_json(tmp_path / "data.yaml", {"title": "Own", "sources": sources, "settings": SETTINGS})
        given = {
            "domain": "medical",
            "data": str(tmp_path / "data.yaml"),
            "pipeline": pipeline,
            "out": str(tmp_path / "out"),
        }
        given |= {"model.path": str(model), "model.licence": "mit"} if model else {}
        plan = make_plan(settled(resolve({**given, "evaluate.tasks": "[arc_easy]", **words}, REPOSITORY)))
        return [*plan.check(), *try_rows(plan, Console("quiet"))]

    return attempt


def test_rows_that_are_all_used_are_not_worth_a_line(attempt: Try) -> None:
    assert attempt(sft=[chat(number) for number in range(40)]) == []


def test_what_a_chat_template_refuses_is_counted_by_source(attempt: Try, tmp_path: Path) -> None:
    publish(replace(FAMILIES["smollm"], template=REFUSES_SYSTEM), tmp_path / "refusing")
    system = {"role": "system", "content": "Be short."}
    late = {"messages": [*chat(0)["messages"], system, *chat(1)["messages"]]}
    rows = [chat(number) for number in range(60)]
    found = attempt(sft=[*rows, late], model=tmp_path / "refusing")
    assert found == [f"sft: source 'sft': 61 rows, 1 dropped ({_reason(found[0])} 1)"]
    with pytest.raises(ContractError, match=r"^Stage sft: 4\.8% .* limit is 1\.0%.*source 'sft' \(3 of 63\)"):
        attempt(sft=[*rows, late, late, late], model=tmp_path / "refusing", sft__limits__dropped="0.01")


def _reason(line: str) -> str:
    return line.partition("(")[2].rpartition(" ")[0]


def test_rows_that_are_all_too_long_stop_before_the_base(attempt: Try, tmp_path: Path) -> None:
    rows = [chat(number, answer="a thing of many words " * 500) for number in range(30)]
    with pytest.raises(
        DataError, match=r"^Stage sft: the role sft has no usable row \(source 'sft': dropped longer than"
    ):
        attempt(sft=rows)
    assert not (tmp_path / "out" / "artifacts").exists()


def test_pairs_and_prompts_are_tried_too(attempt: Try) -> None:
    long = [pair(number, "yes " * 400) for number in range(9)]
    with pytest.raises(
        ContractError, match=r"^Stage dpo: source 'preference' lost all its 9 rows, reason 'longer than"
    ):
        attempt("full", sft=[chat(1)], cpt=[{"text": "water"}] * 9, preference=long)
    prompts = [{"q": f"What is {number}?", "a": "4"} for number in range(9)]
    rows: Row = {"sft": [chat(number) for number in range(40)], "cpt": [{"text": "water"}] * 9, "prompts": prompts}
    with pytest.raises(
        DataError, match=r"^Stage grpo has 9 usable prompts and needs \d+\. Add sources with role: prompts"
    ):
        attempt("grpo", **rows)


def test_paragraphs_are_tried_too(attempt: Try) -> None:
    rows: Row = {"sft": [chat(number) for number in range(40)]}
    texts = [{"text": f"Gate {number} leads to a yard with a well in it."} for number in range(20)]
    with pytest.raises(
        DataError, match=r"^Stage rl_pretrain has 20 usable paragraphs and needs 72\. Add sources with role: cpt\.$"
    ):
        attempt("rl-pretrain", cpt=texts, profile="tiny", **rows)
    long = [{"text": "a gate " * 400 + str(number)} for number in range(90)]
    with pytest.raises(
        ContractError, match=r"^Stage rl_pretrain: source 'cpt' lost all its 90 rows, reason 'longer than prompt_tokens"
    ):
        attempt("rl-pretrain", cpt=long, profile="tiny", **rows)


def test_of_large_sources_a_part_is_tried_and_said(attempt: Try, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.data.leading.ROWS", 20)
    rows = [chat(number, answer="a " * 9000 if number % 12 == 0 else "a") for number in range(100)]
    doubt, line = attempt(sft=rows, sft__limits__dropped="0.06")
    assert doubt.startswith("Stage sft: 10.0% of its rows were dropped, the limit is 6.0%.")
    assert doubt.endswith("rows of source 'sft'; the stage stops if it is the same for all.")
    assert re.fullmatch(r"sft: source 'sft': 20 rows of about \d+ tried, 2 dropped \(longer than .* 2\)", line)
    with pytest.raises(
        ContractError, match=r"limit is 2\.0%.*Seen so in the first 20 of about \d+ rows of source 'sft'\.$"
    ):
        attempt(sft=rows, sft__limits__dropped="0.02")


def test_faults_of_a_template_and_a_tokenizer_are_found_before_the_base(attempt: Try, tmp_path: Path) -> None:
    rows = [chat(number) for number in range(9)]
    publish(replace(FAMILIES["smollm"], template="{{ raise_exception('never') }}"), tmp_path / "never")
    with pytest.raises(ContractError, match=r"^The chat template refuses a question with its answer: never"):
        attempt(sft=rows, model=tmp_path / "never")
    publish(FAMILIES["smollm"], tmp_path / "large")
    config = json.loads((tmp_path / "large" / "config.json").read_text("utf-8"))
    write_json(tmp_path / "large" / "config.json", {**config, "vocab_size": 300})
    with pytest.raises(
        DataError, match=r"embed_tokens\.weight has the shape \[600, 32\]; the model of .* has \[300, 32\]"
    ):
        attempt(sft=rows, model=tmp_path / "large")


def test_a_checkpoint_that_transformers_does_not_know_is_found_before_the_base(attempt: Try, tmp_path: Path) -> None:
    publish(FAMILIES["smollm"], tmp_path / "odd")
    (tmp_path / "odd" / "config.json").write_text('{"model_type": "no-such-model"}', encoding="utf-8")
    with pytest.raises(DataError, match=r"odd cannot be loaded: .* model type `no-such-model`"):
        attempt(sft=[chat(0)], model=tmp_path / "odd")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("from transformers import NoLongerThere", "cannot import name 'NoLongerThere'"),
        ("raise AttributeError('no such part')", "no such part"),
    ],
)
def test_code_of_a_checkpoint_that_is_too_old_is_found_before_the_base(
    line: str, expected: str, attempt: Try, tmp_path: Path
) -> None:
    publish(FAMILIES["smollm"], tmp_path / "old")
    write_json(tmp_path / "old" / "config.json", {"model_type": "old", "auto_map": {"AutoConfig": "own.OldConfig"}})
    (tmp_path / "old" / "own.py").write_text(f"{line}\n", encoding="utf-8")
    with pytest.raises(DataError, match=rf"old cannot be loaded: {expected}"):
        attempt(
            sft=[chat(0)], model=tmp_path / "old", model__trust_remote_code="true", run__allow_code="medical",
        )  # fmt: skip


def test_without_its_tokenizer_a_checkpoint_is_not_tried(attempt: Try, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (line,) = attempt(sft=[chat(0)], model=Path("owner/name"), model__revision="0" * 40)
    assert line == "rows are not tried before the first stage: the checkpoint's tokenizer is not on this machine yet"


def test_the_tiny_base_is_tried_with_the_tokenizer_that_it_will_have(attempt: Try) -> None:
    rows = [chat(number, answer="a thing of many words " * 60) for number in range(30)]
    with pytest.raises(DataError, match=r"^Stage sft: the role sft has no usable row"):
        attempt(sft=rows, model=None)
    assert attempt(sft=[chat(number) for number in range(60)], model=None) == []


def test_turns_that_no_stage_can_learn_are_named_by_the_plan(
    attempt: Try, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = {"messages": chat(1)["messages"][:1]}
    with pytest.raises(ContractError, match=r"^Stage sft: 25\.0% of its rows were dropped, the limit is 5\.0%"):
        attempt(sft=[chat(1), chat(2), chat(3), cut])
    words = ["domain=medical", f"data={tmp_path / 'data.yaml'}", "pipeline=sft-only", f"out={tmp_path / 'out'}"]
    assert main(["plan", *words, "sft.replay=0"]) == 1
    printed = capsys.readouterr()
    assert "\nsft: source 'sft': 4 rows, 1 dropped (ends in a user turn 1)\n" in printed.out
    assert printed.err.startswith("error: Stage sft: 25.0% of its rows were dropped, the limit is 5.0%. Most are from")
    assert main(["plan", *words, "sft.replay=0", "sft.limits.dropped=0.3"]) == 0


def test_rows_that_cannot_be_read_are_named_by_the_plan(
    attempt: Try, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attempt(sft=[chat(1), chat(2)])
    (tmp_path / "sft.jsonl").write_text(f"{json.dumps(chat(1))}\nnonsense\n", encoding="utf-8")
    words = ["domain=medical", f"data={tmp_path / 'data.yaml'}", "pipeline=sft-only", f"out={tmp_path / 'out'}"]
    assert main(["plan", *words]) == 1
    assert capsys.readouterr().err.startswith("error: sft.jsonl, line 2: not valid JSON")
