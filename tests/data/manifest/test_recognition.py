"""Columns that a manifest leaves out are told from the first records, where names and values leave one reading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.data.manifest.fields import Fields, Unclear
from common.data.manifest.peeking import MOST_CHARACTERS, MOST_RECORDS, peek
from common.data.manifest.readers import Record, SourceFile
from common.data.manifest.recognition import recognise
from common.data.manifest.records import rows_of
from common.data.manifest.revisions import Revisions
from common.data.manifest.schema import Source
from common.data.manifest.values import UnusableRow
from common.errors import ConfigError, DataError
from tests.data.manifest.manifests import CPT, EXAM, load, problems, write_rows

SHAREGPT = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]
OPENAI = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
FIRST = {"role": "user", "content": "Why?"}
LAST = {"role": "assistant", "content": "So."}
WORSE = {"role": "assistant", "content": "No."}


def source(role: str, **facts: Any) -> Source:
    side = {"side": "domain"} if role == "eval" else {}
    return Source.model_validate({"id": "s", "role": role, "path": "a.jsonl", "licence": "mit"} | side | facts)


def told(role: str, *records: dict[str, Any], **facts: Any) -> dict[str, Any]:
    keys = recognise(source(role, **facts), records)
    return keys if len(keys) > 1 else keys["columns"]


def row_of(role: str, *records: dict[str, Any], **facts: Any) -> Any:
    given = source(role, **facts)
    whole = Source.model_validate(given.model_dump() | recognise(given, records))
    (found,) = rows_of(whole, Record("a.jsonl, line 1", records[0]))
    assert not isinstance(found.row, UnusableRow), found.row
    return {key: value for key, value in found.row.items() if key not in ("source", "id")}


@pytest.mark.parametrize(
    ("record", "columns"),
    [
        ({"id": 1, "conversations": SHAREGPT, "system": "", "tools": "[]"}, {"messages": "conversations"}),
        ({"messages": OPENAI, "tools": []}, {"messages": "messages"}),
        ({"prompt": "Why?", "messages": OPENAI, "chosen": OPENAI, "rejected": OPENAI}, {"messages": "messages"}),
        ({"history_of_talk": OPENAI}, {"messages": "history_of_talk"}),
        ({"conversation": [{"human": "Why?", "assistant": "So."}]}, {"messages": "conversation"}),
        ({"conversation": [{"input": "Why?", "output": "So."}]}, {"messages": "conversation"}),
        ({"messages": json.dumps(OPENAI)}, {"messages": "messages"}),
        ({"messages": str(OPENAI)}, {"messages": "messages"}),  # as pandas writes lists into a csv file
        ({"prompt": [FIRST], "completion": [LAST]}, {"prompt": "prompt", "completion": "completion"}),
        ({"prompt": "Why?", "completion": "So."}, {"prompt": "prompt", "completion": "completion"}),
        ({"question": "Why?", "answer": "So.", "id": 5}, {"question": "question", "answer": "answer"}),
        ({"q": "Why?", "a": "So."}, {"question": "q", "answer": "a"}),
        ({"Question": "Why?", "Response": "So."}, {"question": "Question", "answer": "Response"}),
        ({"input": "Why?", "output": "So."}, {"question": "input", "answer": "output"}),
    ],
)
def test_conversations(record: dict[str, Any], columns: dict[str, str]) -> None:
    assert told("sft", record) == columns
    assert row_of("sft", record)["messages"] == [FIRST, LAST]
    assert told("replay", record) == columns


def test_alpaca_with_its_input_system_text_and_history() -> None:
    plain = {"instruction": "Why?", "input": "", "output": "So."}
    whole = {**plain, "input": "It rains.", "system": "Be brief.", "history": [["Hi?", "Yes."]]}
    assert told("sft", plain) == {"question": "instruction", "context": "input", "answer": "output"}
    assert row_of("sft", plain)["messages"] == [FIRST, LAST]
    assert told("sft", plain, whole).keys() == {"question", "context", "answer", "system", "history"}
    roles = ("system", "user", "assistant", "user", "assistant")
    contents = ("Be brief.", "Hi?", "Yes.", "Why?\n\nIt rains.", "So.")
    expected = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
    assert row_of("sft", whole)["messages"] == expected


def test_dolly_and_orca() -> None:
    dolly = {"instruction": "Why?", "context": "It rains.", "response": "So.", "category": "qa"}
    assert told("sft", dolly) == {"question": "instruction", "context": "context", "answer": "response"}
    orca = {"id": "1", "system_prompt": "Be brief.", "question": "Why?", "response": "So."}
    assert told("sft", orca) == {"question": "question", "answer": "response", "system": "system_prompt"}


@pytest.mark.parametrize(
    ("record", "doubt"),
    [
        ({"problem": "1+1", "solution": "It is 2.", "answer": "2"}, "'answer' and 'solution' could be the answer"),
        (
            {"question": "Why?", "prompt": "Answer: Why?", "answer": "So."},
            "'question' and 'prompt' could be the question",
        ),
        ({"one": OPENAI, "two": OPENAI}, "'one' and 'two' hold conversations"),
        ({"question": "Why?", "note": "x"}, "none is the answer"),
        ({"title": "x"}, "none is the question"),
        ({"instruction": "Why?", "instances": [{"input": "", "output": "So."}]}, "none is the answer"),
    ],
)
def test_what_has_two_readings_is_asked(record: dict[str, Any], doubt: str) -> None:
    with pytest.raises(Unclear, match=doubt):
        told("sft", record)


def test_columns_that_are_given_stay() -> None:
    record = {"problem": "1+1", "solution": "It is 2.", "answer": "2", "system": "Be brief."}
    assert told("sft", record, columns={"answer": "solution"}) == {
        "question": "problem", "answer": "solution", "system": "system",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("record", "columns"),
    [
        ({"text": "x", "url": "y"}, {"text": "text"}),
        ({"content": "x", "url": "y"}, {"text": "content"}),
        ({"sentences": "x"}, {"text": "sentences"}),
    ],
)
def test_texts(record: dict[str, Any], columns: dict[str, str]) -> None:
    for role in ("cpt", "pretrain", "replay", "eval"):
        assert told(role, record) == columns, role


def test_texts_that_are_not_clear() -> None:
    with pytest.raises(Unclear, match="'content' and 'body' could be the text"):
        told("cpt", {"content": "x", "body": "y"})
    assert told("replay", {"text": "<|user|>", "messages": OPENAI}) == {"messages": "messages"}


PAIR = {"prompt": [FIRST], "chosen": [LAST], "rejected": [WORSE]}


@pytest.mark.parametrize(
    ("record", "names"),
    [
        ({"prompt": "Why?", "chosen": "So.", "rejected": "No."}, {"prompt", "chosen", "rejected"}),
        ({"prompt": [FIRST], "chosen": [LAST], "rejected": [WORSE]}, {"prompt", "chosen", "rejected"}),
        ({"prompt": "Why?", "chosen": [FIRST, LAST], "rejected": [FIRST, WORSE]}, {"chosen", "rejected"}),
        (
            {"conversations": SHAREGPT[:1], "chosen": SHAREGPT[1], "rejected": {"from": "gpt", "value": "No."}},
            {"prompt", "chosen", "rejected"},
        ),
        ({"instruction": "Why?", "input": "", "chosen": "So.", "rejected": "No."}, {"prompt", "chosen", "rejected"}),
        ({"question": "Why?", "chosen": "So.", "rejected": "No."}, {"prompt", "chosen", "rejected"}),
        (
            {"input": {"messages": [FIRST]}, "preferred_output": [LAST], "non_preferred_output": [WORSE]},
            {"prompt", "chosen", "rejected"},
        ),
        (
            {"chosen": "\n\nHuman: Why?\n\nAssistant: So.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."},
            {"transcript_chosen", "transcript_rejected"},
        ),
    ],
)
def test_pairs(record: dict[str, Any], names: set[str]) -> None:
    columns = told("preference", record)
    assert columns.keys() == names
    assert row_of("preference", record) == PAIR
    assert told("eval", record) == columns


@pytest.mark.parametrize(
    ("record", "names"),
    [
        ({"prompt": "Why?", "completion": "So.", "label": True}, {"prompt", "completion", "label"}),
        ({"prompt": "Why?", "response": "So.", "label": "desirable"}, {"prompt", "completion", "label"}),
        ({"prompt": [FIRST], "completion": [LAST], "label": 1}, {"prompt", "completion", "label"}),
        ({"messages": OPENAI, "kto_tag": True}, {"messages", "label"}),
        ({"conversations": SHAREGPT, "label": "true"}, {"messages", "label"}),
    ],
)
def test_single_answers_with_a_label(record: dict[str, Any], names: set[str]) -> None:
    assert told("preference", record).keys() == names
    assert row_of("preference", record) == {"prompt": [FIRST], "completion": [LAST], "label": True}


@pytest.mark.parametrize(
    ("record", "doubt"),
    [
        ({"prompt": "Why?", "chosen": "So."}, "'chosen' has no column beside it"),
        (
            {"prompt": "Why?", "completion": "So.", "label": "sports"},
            "'label' is neither true nor false: 'sports' is not among true and false, 1 and 0 or -1, yes and no",
        ),
        ({"prompt": "Why?", "answer": "So."}, "none is a pair of answers, or a label of one"),
        ({"chosen": "So.", "rejected": "No."}, "none is the prompt"),
        ({"prompt": "Why?", "question": "Why?", "chosen": "So.", "rejected": "No."}, "could be the prompt"),
        ({"prompt": "Why?", "answer": "x", "output": "y", "label": 1}, "'output' and 'answer' could be the answer"),
    ],
)
def test_preferences_that_are_not_clear(record: dict[str, Any], doubt: str) -> None:
    with pytest.raises(Unclear, match=doubt):
        told("preference", record)


def test_prompts() -> None:
    assert told("prompts", {"prompt": "1+1?", "ground_truth": 2}) == {"question": "prompt", "answer": "ground_truth"}
    assert told("prompts", {"question": "1+1?", "answer": "So it is.\n#### 2"}) == {
        "columns": {"question": "question", "answer": "answer"}, "final": "####",
    }  # fmt: skip
    assert row_of("prompts", {"prompt": [FIRST], "solution": "So."}) == {"prompt": [FIRST], "answer": "So."}
    assert told("prompts", {"instruction": "Write.", "other": 1}) == {"question": "instruction"}
    with pytest.raises(Unclear, match="'answer' and 'solution' could be the answer"):
        told("prompts", {"problem": "1+1?", "answer": "2", "solution": "It is 2."})


ASKED = {"question": "Which?", "choices": ["one", "two", "three"], "answer": 1}


@pytest.mark.parametrize(
    "record",
    [
        {"question": "Which?", "choices": ["one", "two", "three"], "answer": 1, "subject": "x"},  # MMLU
        {"question": "Which?", "choices": {"text": ["one", "two", "three"], "label": [*"ABC"]}, "answerKey": "B"},
        {"question": {"stem": "Which?", "choices": [{"text": t, "label": n} for t, n in (("one", "1"), ("two", "2"),
                      ("three", "3"))]}, "answerKey": "2"},
        {"question": "Which?", "options": {"A": "one", "B": "two", "C": "three"}, "answer": "two", "answer_idx": "B"},
        {"question": "Which?", "opa": "one", "opb": "two", "opc": "three", "cop": 1, "exp": "so"},  # MedMCQA
        {"URL": "u", "Question": "Which?", "Option A": "one", "Option B": "two", "Option C": "three", "Prompt": "Q: …",
         "GT": "B"},  # CTI-MCQ
        {"id": 0, "question": "Which?", "A": "one", "B": "two", "C": "three", "answer": "B"},  # C-Eval
        {"question": "Which?", "options": ["A)one", "B)two", "C)three"], "rationale": "So.", "correct": "B"},  # AQuA
        {"question": "Which?", "options": ["(A) one", "(B) two", "(C) three"], "answer": "(B)"},
        {"question": "Which?", "choices": "['one', 'two', 'three']", "answer": "two"},
        {"question": "Which?", "options": ["one", "two", "three"], "answer": "B", "answer_index": 1},  # MMLU-Pro
        {"question": "Which?", "choice1": "one", "choice2": "two", "choice3": "three", "choice4": "", "answer": "two"},
    ],
)  # fmt: skip
def test_exams_with_choices(record: dict[str, Any]) -> None:
    others = {"answer": 0, "cop": 0} if isinstance(record.get("answer", record.get("cop")), int) else {}
    assert row_of("eval", record, record | {key: 0 for key in others if key in record}) == ASKED


def test_answers_that_count_from_one() -> None:
    rows = [{"question": "Which?", "options": ["a", "b"], "answer": number} for number in (1, 2, 1)]
    assert told("eval", *rows)["index_from"] == 1
    assert row_of("eval", *rows)["answer"] == 0
    with pytest.raises(Unclear, match="'answer' counts the choices from 0 or from 1; say which with index_from"):
        told("eval", rows[0] | {"options": ["a", "b", "c"]})
    named = row_of("eval", {"question": "Which?", "sentence": "x", "option1": "a", "option2": "b", "answer": "2"})
    assert (named["choices"], named["answer"]) == (["a", "b"], 1)


def test_answers_that_are_no_whole_numbers_do_not_count() -> None:
    record = {"question": "Which?", "choices": ["a", "b"], "answer": "a", "label": float("nan")}
    assert told("eval", record) == {"question": "question", "choices": "choices", "answer": "answer"}


def test_two_columns_that_name_different_choices() -> None:
    record = {"question": "Which?", "choices": ["a", "b"], "answer": "a", "label": "b"}
    with pytest.raises(Unclear, match="'answer' and 'label' name different choices"):
        told("eval", record)


@pytest.mark.parametrize(
    "record",
    [
        {
            "question": "Which?",
            "distractor3": "c",
            "distractor1": "a",
            "distractor2": "b",
            "correct_answer": "d",
        },  # SciQ
        {"Question": "Which?", "Correct Answer": "d", "Incorrect Answer 1": "c", "Incorrect Answer 2": "b"},  # GPQA
    ],
)
def test_a_right_answer_beside_wrong_ones(record: dict[str, Any]) -> None:
    row = row_of("eval", record)
    assert row["question"] == "Which?"
    assert (row["choices"][0], row["answer"]) == ("d", 0)
    assert sorted(row["choices"]) == sorted(value for value in record.values() if value != "Which?")
    with pytest.raises(Unclear):  # the right choice of every row trained on would be A
        told("sft", record)


def test_columns_that_differ_are_seen_where_one_has_gaps() -> None:
    rows = [{"question": "Which?", "choices": ["a", "b"], "answer": "a", "label": label} for label in ("", "b", "a")]
    with pytest.raises(Unclear, match="'answer' and 'label' name different choices"):
        told("eval", *rows)


def test_places_told_by_most_records_are_not_taken_for_choices() -> None:
    others = [
        {"question": "Which?", "choices": ["w", "x", "y", "z"], "answer": str(n), "key": "ABCD"[n]} for n in (0, 2)
    ]
    sums = {"question": "1+3?", "choices": ["2", "3", "4", "5"], "answer": "2", "key": "C"}
    assert told("eval", *others, sums)["answer"] == "answer"  # else answer and key would name different choices


def test_numbers_of_choices_are_no_places_for_one_wrong_answer() -> None:
    rows = [{"question": "3+1?", "choices": ["4", "7", "8", "9"], "answer": "4"}] * 2
    rows += [{"question": "3+4?", "choices": ["4", "7", "8", "9"], "answer": "7"}] * 10
    wrong = {"question": "2+4?", "choices": ["5", "6", "7", "8"], "answer": "4"}
    assert told("eval", *rows, wrong) == {"question": "question", "choices": "choices", "answer": "answer"}


def test_an_answer_may_be_json_as_text() -> None:
    record = {"instruction": "Which?", "input": '{"b": 2}', "output": '{"a": 1}'}
    assert told("sft", record) == {"question": "instruction", "context": "input", "answer": "output"}
    assert row_of("sft", record)["messages"][1]["content"] == '{"a": 1}'
    completed = {"prompt": "Which?", "completion": '{"a": 1}'}
    assert told("sft", completed) == {name: name for name in completed}
    labelled = completed | {"label": True}
    assert told("preference", labelled) == {name: name for name in labelled}
    with pytest.raises(Unclear, match="none is the question"):  # messages are no text
        told("sft", {"prompt": json.dumps([FIRST]), "response": "So."})


def test_all_that_a_question_is_about_is_read() -> None:
    record = {"instruction": "Why?", "input": "It rains.", "context": "In May.", "output": "So."}
    assert told("sft", record)["context"] == ("input", "context")
    assert row_of("sft", record)["messages"][0]["content"] == "Why?\n\nIt rains.\n\nIn May."
    exam = ASKED | {"article": "It rains.", "passage": "In May.", "answer": 0}
    assert told("eval", exam)["context"] == ("passage", "article")


def test_an_input_beside_a_prompt_is_asked_about() -> None:
    with pytest.raises(Unclear, match="'prompt' and 'input' could be the question"):
        told("prompts", {"prompt": "Why?", "input": "It rains.", "source": "x"})


def test_exams_with_written_answers() -> None:
    gsm = {"question": "1+1?", "answer": "It is so.\n#### 1,002"}
    assert told("eval", gsm) == {
        "columns": {"question": "question", "answer": "answer"}, "final": "####", "match": "number",
    }  # fmt: skip
    assert row_of("eval", gsm)["answers"] == ["1,002"]
    assert told("eval", {"question": "1+1?", "answer": 2})["match"] == "number"
    assert told("eval", {"question": "Who?", "answers": ["x", "y"]}, match="text") == {
        "question": "question", "answers": "answers",
    }  # fmt: skip
    with pytest.raises(Unclear, match="match: text or number must say what counts as equal"):
        told("eval", {"question": "Who?", "answer": "Ada"})


def test_chat_and_prompts_with_choices() -> None:
    asked = "Which?\nA. one\nB. two\nC. three"
    assert row_of("sft", ASKED, ASKED | {"answer": 0})["messages"][0]["content"] == asked
    assert row_of("prompts", ASKED, ASKED | {"answer": 0})["answer"] == "B. two"


def test_items_of_a_list() -> None:
    record = {"title": "x", "qas": [{"question": "Why?", "answer": "So."}]}
    item = record | {"qas": record["qas"][0]}
    assert told("sft", item, each="qas") == {"question": "qas.question", "answer": "qas.answer"}


# --- in a manifest ------------------------------------------------------------------------------------------------


def test_what_is_recognised_is_the_same_as_what_is_named(folder: Path) -> None:
    write_rows(folder / "chats.jsonl", [{"conversations": SHAREGPT, "id": number} for number in range(3)])
    chats = {"id": "chats", "role": "sft", "path": "chats.jsonl", "licence": "mit"}
    found = load(folder, CPT, chats)
    named = load(folder, CPT | {"columns": {"text": "text"}}, chats | {"columns": {"messages": "conversations"}})
    for role in ("cpt", "sft"):
        assert found.identity([role]) == named.identity([role])
    assert found.identity(["sft"])[0]["columns"] == {"messages": "conversations"}
    assert [row["messages"] for row in found.rows("sft")] == [[FIRST, LAST]] * 3
    assert found.shapes() == {
        "texts": "text (text); not read: body",
        "chats": "ShareGPT conversations (messages: conversations); not read: id",
    }
    assert found.conversations("sft") == {"chats": True}


def test_what_fits_nothing_is_one_line(folder: Path) -> None:
    write_rows(folder / "chats.jsonl", [{"title": "x", "note": "y"}])
    text = problems(folder, CPT, {"id": "chats", "role": "sft", "path": "chats.jsonl", "licence": "mit"})
    assert text.endswith(
        "source 'chats': chats.jsonl: what role sft needs is not clear from its columns (title, note): none is the "
        "question. Write columns: {messages: …} or columns: {question: …, answer: …}."
    )
    assert len(text.splitlines()) == 1


def test_what_is_rare_is_looked_for_in_more_than_one_record(folder: Path) -> None:
    plain = {"instruction": "Why?", "output": "So."}
    write_rows(folder / "chats.jsonl", [plain] * 40 + [plain | {"system": "Be brief."}])
    corpus = load(folder, CPT, {"id": "chats", "role": "sft", "path": "chats.jsonl", "licence": "mit"})
    assert corpus.identity(["sft"])[0]["columns"]["system"] == "system"
    assert len(list(corpus.rows("sft"))) == 41


def test_columns_that_the_first_hundred_records_lack_are_read(folder: Path) -> None:
    plain = {"instruction": "Why?", "output": "So."}
    late = {"instruction": "Why?", "input": "It rains.", "system": "Be brief.", "output": "So.", "history": []}
    write_rows(folder / "chats.jsonl", [plain] * 200 + [late, plain | {"context_2": "Lost."}])
    chats = {"id": "chats", "role": "sft", "path": "chats.jsonl", "licence": "mit"}
    corpus = load(folder, CPT, chats)
    messages = [row["messages"] for row in corpus.rows("sft")][200]
    assert [turn["content"] for turn in messages] == ["Be brief.", "Why?\n\nIt rains.", "So."]
    assert corpus.counts("sft")["chats"].changed == {"'context_2' not read, a column that the first rows lack": 1}
    columns = corpus.identity(["sft"])[0]["columns"]
    told = "context: input, system, history"
    assert told in corpus.shapes()["chats"]
    # What is printed may be written out.
    assert load(folder, CPT, chats | {"columns": columns}).identity(["sft"]) == corpus.identity(["sft"])


def test_a_fifth_choice_that_the_first_hundred_records_lack(folder: Path) -> None:
    asked = {"question": "Which?", "A": "a", "B": "b1", "C": "c1", "D": "d1", "answer": "B"}
    write_rows(
        folder / "exam.jsonl",
        [asked | {"answer": "ABCD"[n % 4]} for n in range(120)] + [asked | {"E": "e1", "answer": "E"}],
    )
    exam = {"id": "exam", "role": "eval", "side": "domain", "path": "exam.jsonl", "licence": "mit"}
    corpus = load(folder, CPT, exam)
    last = list(corpus.rows("questions_domain"))[-1]
    assert (last["choices"][-1], last["answer"]) == ("e1", 4)
    named = load(folder, CPT, exam | {"columns": corpus.identity(["questions_domain"])[0]["columns"]})
    assert named.identity(["questions_domain"]) == corpus.identity(["questions_domain"])


def test_the_tools_of_openai_preferences() -> None:
    schema = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    row = {"preferred_output": [LAST], "non_preferred_output": [WORSE]}
    asked = row | {"input": {"messages": [FIRST], "tools": [schema], "parallel_tool_calls": True}}
    assert row_of("preference", asked)["tools"] == [schema]
    assert "tools" not in row_of("preference", row | {"input": {"messages": [FIRST]}})


def test_choices_that_are_objects() -> None:
    listed = [{"key": "A", "value": "a1"}, {"key": "B", "value": "b1"}]
    asked = {"question": "Which?", "options": listed, "answer_idx": "B"}
    columns = {"choices": "options.*.value", "labels": "options.*.key"}
    assert told("eval", asked) == columns | {"question": "question", "answer": "answer_idx"}
    assert row_of("eval", asked)["answer"] == 1
    with pytest.raises(Unclear, match=r"'options' holds objects \(name\), so write choices: options\.\*\.<the key"):
        told("eval", asked | {"options": [{"name": "a"}, {"name": "b"}]})


BLOOD = {"A": "B", "B": "A", "C": "AB", "D": "O"}
LABELLED = [
    {"options": BLOOD},
    {"choices": {"text": [*BLOOD.values()], "label": [*BLOOD]}},
    {"options": [{"key": key, "value": value} for key, value in BLOOD.items()]},
    BLOOD,
    {f"option_{key.lower()}": value for key, value in BLOOD.items()},
    {"options": [f"{key}) {value}" for key, value in BLOOD.items()]},
]


@pytest.mark.parametrize("given", LABELLED)
def test_a_letter_is_a_label_before_it_is_the_text_of_a_choice(given: dict[str, Any]) -> None:
    found = row_of("eval", {"question": "Which?", **given, "answer": "A"})
    assert found["choices"][found["answer"]] == "B"


def test_numbers_that_are_labels_or_values_of_choices() -> None:
    asked = {"question": "How many?", "choices": [0, 1, 2, 3]}
    assert row_of("eval", asked | {"answer": 1}, asked | {"answer": 0})["answer"] == 1
    labelled = {"question": "Which?", "choices": {"text": ["a1", "b1", "c1"], "label": ["1", "2", "3"]}}
    assert row_of("eval", labelled | {"answer": 2}, labelled | {"answer": 1})["answer"] == 1


@pytest.mark.parametrize("named", [True, False])
def test_numbers_that_can_be_values_or_places_are_asked_for(folder: Path, named: bool) -> None:
    asked = {"question": "How many?", "choices": [3, 2, 1, 0]}
    write_rows(folder / "exam.jsonl", [asked | {"answer": 0}, asked | {"answer": 1}])
    columns = {name: name for name in ("question", "choices", "answer")}
    exam: dict[str, Any] = {"id": "exam", "role": "eval", "side": "domain", "path": "exam.jsonl", "licence": "mit"}
    exam |= {"columns": columns} if named else {}
    doubt = "its answers can be values of the choices or their places; say which: answer_by: text or mark"
    with pytest.raises(DataError, match=doubt):
        list(load(folder, CPT, exam).rows("questions_domain"))
    ones = exam | {"columns": columns, "index_from": 1}
    write_rows(folder / "exam.jsonl", [asked | {"answer": 1}, asked | {"answer": 2}])
    assert [row["answer"] for row in load(folder, CPT, ones).rows("questions_domain")] == [0, 1]
    write_rows(folder / "exam.jsonl", [asked | {"answer": 0}, asked | {"answer": 1}])
    for by, first in (("text", 3), ("mark", 0)):
        given = exam | {"columns": {name: name for name in ("question", "choices", "answer")}, "answer_by": by}
        assert next(iter(load(folder, CPT, given).rows("questions_domain")))["answer"] == first


@pytest.mark.parametrize("choices", [[1, 2, 3, 4], [10, 20, 30, 40]])
def test_numbers_some_of_which_can_be_no_place_are_values(folder: Path, choices: list[int]) -> None:
    asked = {"question": "How many?", "choices": choices}
    write_rows(folder / "exam.jsonl", [asked | {"answer": choices[place]} for place in (0, 1, 3)])
    exam = {"id": "exam", "role": "eval", "side": "domain", "path": "exam.jsonl", "licence": "mit"}
    named = exam | {"columns": {name: name for name in ("question", "choices", "answer")}}
    for given in (exam, named):
        assert [row["answer"] for row in load(folder, CPT, given).rows("questions_domain")] == [0, 1, 3]


def test_answers_that_are_true_or_false() -> None:
    asked = {"question": "Is it?", "passage": "It is.", "answer": True}
    for choices in (["no", "yes"], ["Yes", "No", "Maybe"], ["false", "true"]):
        found = row_of("eval", asked, asked | {"answer": False}, choices=choices)
        assert choices[found["answer"]].lower() in ("yes", "true")
    with pytest.raises(Unclear, match=r"the answers are true or false, so choices: \[no, yes\] must say"):
        told("eval", asked)


def test_a_table_without_a_header_is_told(folder: Path) -> None:
    (folder / "exam.csv").write_text("What is one and one?,0,1,2,3,C\nWhat is two and two?,1,2,3,4,D\n")
    exam = {"id": "exam", "role": "eval", "side": "domain", "path": "exam.csv", "licence": "mit"}
    hint = "Its first line looks like a row: name the columns with header: [question, A, B, …]"
    columns = {"question": "q", "choices": ["a", "b", "c", "d"], "answer": "k"}
    assert hint in problems(folder, CPT, exam)
    assert hint in problems(folder, CPT, exam | {"columns": columns})
    (folder / "exam.csv").write_text("What is one and one?,2,2,3,4,A\n" * 3)
    assert "if it is a row, name the columns with header:" in problems(folder, CPT, exam)
    named = exam | {"header": ["question", "A", "B", "C", "D", "answer"]}
    (folder / "exam.csv").write_text("What is one and one?,0,1,2,3,C\nWhat is two and two?,1,2,3,4,D\n")
    assert [row["answer"] for row in load(folder, CPT, named).rows("questions_domain")] == [2, 3]


@pytest.mark.parametrize("title", ["Questions of 2024,,\n", "Questions of 2024\n", "Questions of 2024,\n"])
def test_a_title_above_the_header_is_told(folder: Path, title: str) -> None:
    rows = ["question,answer\nWhy?,So.\n", "question,answer,id\nWhy?,So.,1\n"][title.count(",") != 1]
    (folder / "chats.csv").write_text(title + rows)
    text = problems(folder, CPT, {"id": "chats", "role": "sft", "path": "chats.csv", "licence": "mit"})
    assert "title" in text
    assert "above the header" in text


def test_a_pair_whose_input_comes_late(folder: Path) -> None:
    pair = {"instruction": "Why?", "chosen": "So.", "rejected": "No."}
    write_rows(folder / "pairs.jsonl", [pair] * 120 + [pair | {"input": "It rains."}])
    corpus = load(folder, CPT, {"id": "pairs", "role": "preference", "path": "pairs.jsonl", "licence": "mit"})
    assert list(corpus.rows("preference"))[-1]["prompt"][0]["content"] == "Why?\n\nIt rains."


def test_few_conversations_are_looked_at_where_they_are_long(folder: Path) -> None:
    long = {"messages": [{"role": "user", "content": "Why? " * 10_000}, OPENAI[1]]}
    write_rows(folder / "chats.jsonl", [long] * MOST_RECORDS)
    read_so_far: list[float] = []
    file = SourceFile(folder / "chats.jsonl", "chats.jsonl", read_so_far.append)
    assert peek(source("sft", path="chats.jsonl"), [file]).source.columns == {"messages": "messages"}
    assert len(read_so_far) < MOST_RECORDS - 10
    assert read_so_far[-1] == pytest.approx(MOST_CHARACTERS, rel=0.05)


def test_a_column_of_json_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def parse(value: Any) -> Any:
        asked.append(value)
        return json.loads(value)

    monkeypatch.setattr("common.data.manifest.fields.parsed", parse)
    fields = Fields([{"a": "[1]"}, {"a": "[2]"}])
    assert fields.holds("a", list)
    assert fields.without(["b"]).rows("a") == [[1], [2]]
    assert asked == ["[1]", "[2]"]


def test_a_recognised_exam_needs_its_side(folder: Path) -> None:
    exam = {key: value for key, value in EXAM.items() if key not in ("side", "columns", "choices")}
    write_rows(folder / "exam.jsonl", [ASKED, ASKED | {"answer": 0}])
    assert "taken for columns: {choices: choices, question: question, answer: answer}; but role eval needs side" in (
        problems(folder, CPT, exam)
    )


def test_a_misspelt_name_on_our_side(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown column name 'mesages' on our side\. Did you mean 'messages'"):
        load(folder, CPT | {"role": "sft", "columns": {"mesages": "m"}})


def test_a_data_set_of_the_hub_is_asked_only_where_columns_are_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def read(given: Source) -> Any:
        asked.append((given.id, given.revision))
        yield Record("o/n[train], row 1", {"conversations": SHAREGPT})

    monkeypatch.setattr("common.data.manifest.manifest.read_hub", read)
    monkeypatch.setattr(
        "common.data.manifest.manifest.Revisions.pin", lambda self, s: s.model_copy(update={"revision": "c"})
    )
    hub = {"id": "hub", "role": "sft", "hub": "o/n", "split": "train", "licence": "mit"}
    corpus = load(folder, CPT, hub, hub | {"id": "named", "split": "other", "columns": {"messages": "m"}})
    assert asked == [("hub", "c")]
    assert corpus.shapes()["hub"] == "ShareGPT conversations (messages: conversations)"
    assert corpus.shapes()["named"] == "chat conversations (messages: m)"


def test_a_data_set_of_the_hub_that_cannot_be_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(given: Source) -> Any:
        raise DataError(f"Source '{given.id}': the Hub could not be reached.")

    monkeypatch.setattr("common.data.manifest.manifest.read_hub", read)
    monkeypatch.setattr(Revisions, "pin", lambda self, given: given)
    hub = {"id": "hub", "role": "sft", "hub": "o/n", "split": "train", "licence": "mit"}
    text = problems(folder, CPT, hub)
    assert "source 'hub': the Hub could not be reached; with columns named, it is not asked before a run." in text
