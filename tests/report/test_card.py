"""The card stage on a hand-made chain: what it writes, in which form, and what it never tells."""

from __future__ import annotations

import getpass
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from markdown_it import MarkdownIt

from common.errors import ContractError
from common.report.chain import load_chain, read_curve, read_lines
from common.report.markdown import duration, p_value, points, table
from common.report.privacy import clean
from common.report.record import Summary
from common.report.stage_notes import exam_warnings
from common.stage import StageContext
from common.stages import card
from common.store.artifacts import Artifact, fingerprint_of
from tests.report import conftest

BuildChain = Callable[..., dict[str, Artifact]]
BuildContext = Callable[..., StageContext]


def readme(out: Path) -> tuple[dict[str, Any], str]:
    _, head, body = (out / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), body


def test_the_card_stage_writes_its_five_files(written: tuple[Path, dict[str, Artifact]]) -> None:
    assert sorted(p.name for p in written[0].iterdir()) == [
        "README.md",
        "card.json",
        "exam.png",
        "loss.png",
        "summary.json",
    ]


def test_no_path_token_user_or_machine_is_in_any_file(written: tuple[Path, dict[str, Artifact]], token: str) -> None:
    place = str(written[0].parent)
    manifest = json.dumps(dict(written[1]["cpt"].manifest))
    assert place in manifest  # there is something to leak
    assert "secret-host" in manifest
    for path in written[0].iterdir():
        content = path.read_bytes()
        for secret in (place, str(Path.home()) + "/", token, "secret-host", f"/{getpass.getuser()}/"):
            assert secret.encode() not in content, f"{secret} in {path.name}"


def test_summary_follows_its_schema_and_the_manifests(written: tuple[Path, dict[str, Artifact]]) -> None:
    out, inputs = written
    raw = json.loads((out / "summary.json").read_text())
    summary = Summary.model_validate(raw)
    assert summary.model_dump(mode="json") == raw
    assert [c.name for c in summary.checkpoints] == ["base", "sft-only", "cpt", "sft", "dpo", "merge"]
    assert [c.parent for c in summary.checkpoints] == [None, "base", "base", "cpt", "sft", "dpo"]
    assert summary.total_seconds == sum(a.manifest["seconds"] for a in inputs.values()) == 24.0
    sft = summary.checkpoints[3]
    assert sft.fingerprint == inputs["sft"].fingerprint
    assert sft.exam["domain"] is not None
    assert (sft.exam["domain"].score, sft.exam["domain"].n) == (50 / 60, 60)
    assert (sft.tokens, sft.seconds, sft.tokens_per_second) == (122880, 2.0, 12288.0)


@pytest.mark.parametrize(
    ("path", "value"),
    [(("unknown",), 1), (("checkpoints", 0, "exam", "domain", "low"), 0.9), (("total_seconds",), float("inf"))],
)
def test_summary_refuses_what_is_not_its_schema(
    written: tuple[Path, dict[str, Artifact]], path: tuple[Any, ...], value: Any
) -> None:
    raw = json.loads((written[0] / "summary.json").read_text())
    place = raw
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ValueError, match="validation error"):
        Summary.model_validate(raw)


def test_front_matter_is_what_the_hub_reads(written: tuple[Path, dict[str, Artifact]]) -> None:
    from huggingface_hub import ModelCard

    data = ModelCard.load(written[0] / "README.md").data
    assert (data.license, data.library_name, data.pipeline_tag) == ("cc-by-4.0", "transformers", "text-generation")
    assert data.datasets == ["someone/notes"]
    assert data.tags == ["medical", "cpt", "sft", "dpo", "merge", "domain-recipes", "notes"]
    results = {(r.dataset_type, r.metric_type): r.metric_value for r in data.eval_results}
    assert results[("medical-domain", "accuracy")] == round(49 / 60, 4)
    assert results[("medical-general", "bits_per_byte")] == 1.5


@pytest.mark.parametrize(
    ("record", "said", "base_model"),
    [
        (None, "Its base model was pretrained in the same run.", None),
        (
            {"id": "Qwen3-0.6B", "title": "Qwen/Qwen3-0.6B", "origin": "hub", "revision": "c" * 40, "licence": "mit"},
            f"It starts from [Qwen/Qwen3-0.6B](https://huggingface.co/Qwen/Qwen3-0.6B) at commit `{'c' * 40}`.",
            "Qwen/Qwen3-0.6B",
        ),
        (
            {"id": "ours", "title": "local checkpoint", "origin": "local", "adjusted": ["padding is 'p'", "2 new"]},
            "It starts from the checkpoint in the local folder `ours`. Before training: padding is 'p'; 2 new.",
            None,
        ),
        (
            {"id": "ours", "title": "local checkpoint", "origin": "local", "licence": "mit", "base_model": "a/b"},
            "in the local folder `ours`. They say that it was made from [a/b](https://huggingface.co/a/b).",
            "a/b",
        ),
        (
            {"id": "smol.gguf", "title": "Smol 135M", "origin": "local", "licence": "mit"},
            "It starts from the checkpoint in the local GGUF file `smol.gguf`, whose files name it Smol 135M.",
            None,
        ),
        (
            {"id": "llm-smol 0.1", "title": "Smol 135M", "origin": "package", "licence": "mit"},
            "in the installed Python package `llm-smol 0.1`, whose files name it Smol 135M.",
            None,
        ),
    ],
)
def test_the_card_says_where_the_first_model_came_from(
    record: dict[str, Any] | None,
    said: str,
    base_model: str | None,
    build_chain: BuildChain,
    card_context: BuildContext,
) -> None:
    context = card_context(build_chain(base=record))
    card.run(context)
    head, body = readme(context.out)
    assert said in body
    assert head.get("base_model") == base_model


def test_a_base_that_was_given_is_told_as_one(build_chain: BuildChain, card_context: BuildContext) -> None:
    record = {"id": "ours", "title": "local checkpoint", "origin": "local", "licence": "mit"}
    inputs = build_chain(base=record)
    base, cpt = (dict(inputs[name].manifest) for name in ("base", "cpt"))
    model = {"architecture": {"hidden_size": 128}, "vocabulary_size": 2048, "files": {"config.json": "a" * 64}}
    base |= {"recipe": {**base["recipe"], "model": model}, "settings": {"tokens": 500_000}}
    several = {"sources": [{"id": "world", "role": "pretrain, replay, eval"}]}
    cpt |= several | {"rows": [{"source": "world", "role": "replay", "rows_in": 9, "rows_out": 9}]}
    exam = {**inputs["exam-base"].manifest, **several}
    changed = {"base": base, "cpt": cpt, "exam-base": exam}
    inputs |= {name: replace(inputs[name], manifest=manifest) for name, manifest in changed.items()}
    context = card_context(inputs)
    card.run(context)
    _, body = readme(context.out)
    assert "The whole run made 5 models from" in body  # of six
    recipe = yaml.safe_load(body.split("<summary>base (base)</summary>")[1].split("```")[1].removeprefix("yaml"))
    assert recipe == {
        "seed": 7,
        "model": {
            "path": "ours", "dtype": "float32", "chat_template": "own", "new_tokens": [], "control_tokens": [],
            "trust_remote_code": False, "files": {"config.json": "a" * 64},
        },
    }  # fmt: skip
    digest = fingerprint_of({"config.json": "a" * 64})[:12]
    rows = [" ".join(line.split()) for line in body.splitlines()]
    assert f"| `ours` | base model | mit | `{digest}` | `base` | — |" in rows
    assert any(
        row.startswith("| `base` | ") and f" | `ours` `{digest}` | `{inputs['base'].digest[:12]}`" in row
        for row in rows
    )
    assert any(row.startswith("| `world` | replay, eval | ") for row in rows)


def test_every_table_is_a_table_and_lines_up(written: tuple[Path, dict[str, Artifact]]) -> None:
    body = readme(written[0])[1]
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    num_tables = sum(token.type == "table_open" for token in tokens)
    blocks = re.findall(r"(?:^\|.*\n)+", body, flags=re.M)
    assert num_tables == len(blocks) == 8
    for block in blocks:
        assert len({len(line) for line in block.splitlines()}) == 1
    for token in tokens:  # nothing that looks like a table row ended up in a paragraph
        assert not (token.type == "inline" and token.content.startswith("|"))


def test_the_sections_hold_the_facts_of_the_manifests(written: tuple[Path, dict[str, Artifact]]) -> None:
    out, inputs = written
    body = readme(out)[1]
    rows = {line.split("|")[1].strip(): line for line in body.splitlines() if line.startswith("| ")}
    assert "cc-by-4.0" in rows["`someone/notes`"]
    assert "`aaaaaaaaaaaa`" in rows["`someone/notes`"]
    assert inputs["exam-sft"].fingerprint[:12] in rows["`exam-sft`"]
    assert inputs["sft"].fingerprint[:12] in rows["`exam-sft`"]
    assert "`cccccccccccc` + local changes" in body
    assert "3 empty, 2 exam" in body
    assert "| torch   | 2.13.0  |" in body
    assert "\n\nIn 90.0% [77.0%, 96.0%] of 40 held-out pairs, `dpo` made" in body
    assert body.count("<details>") == body.count("</details>") == 7  # six stages, and one for all exams
    assert "(local)/rows.jsonl" in body
    assert "It is not a doctor." in body
    for picture in ("exam.png", "loss.png"):
        assert f"]({picture})" in body


def test_a_source_with_a_form_says_how_it_was_written(written: tuple[Path, dict[str, Artifact]]) -> None:
    body = readme(written[0])[1]
    told = "- `someone/notes`: written as `qa`, questions and answers as plain text, without the chat template: arXiv"
    assert told in body
    assert 'Settings: question `""`, answer `""`, between `"\\n\\n"`.' in body


def test_a_side_without_questions_is_a_dash(build_chain: BuildChain, card_context: BuildContext) -> None:
    context = card_context(build_chain({"base": (None, 16), "cpt": (None, 38)}))
    card.run(context)
    body = readme(context.out)[1]
    row = next(line for line in body.splitlines() if line.startswith("| **`cpt`**"))
    assert [cell.strip() for cell in row.split("|")][3:5] == ["—", "63.3% [50.7%, 74.4%]"]
    assert "Not measured by an exam: this run had no general one." in body
    summary = Summary.model_validate_json((context.out / "summary.json").read_text())
    assert summary.checkpoints[0].exam["general"] is None


def test_card_json_records_the_whole_chain(written: tuple[Path, dict[str, Artifact]]) -> None:
    out, inputs = written
    record = json.loads((out / "card.json").read_text())
    assert list(record["stages"]) == list(inputs)
    assert record["stages"]["dpo"]["digest"] == inputs["dpo"].digest
    assert record["published"] == "merge"
    pair = {"before": "base", "after": "cpt", "side": "domain", "gained": 22, "lost": 0, "proven": True}
    assert any(pair.items() <= comparison.items() for comparison in record["comparisons"])


def test_a_chain_without_a_checkpoint_is_refused(build_chain: BuildChain) -> None:
    inputs = build_chain({"base": (50, 16)})
    with pytest.raises(ContractError, match="has no model to describe; its inputs are exam-base"):
        load_chain({"exam-base": inputs["exam-base"]})


def test_an_exam_that_cannot_be_read_is_refused(build_chain: BuildChain) -> None:
    inputs = build_chain({"base": (50, 16)})
    exam = inputs["exam-base"].path / "exam.json"
    exam.write_text("{}")
    with pytest.raises(ContractError, match="does not say which checkpoint"):
        load_chain(inputs)
    exam.unlink()
    with pytest.raises(ContractError, match=r"no readable exam\.json"):
        load_chain(inputs)


def test_a_log_is_read_once_per_step_and_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    rows = [{"loss": 3.0, "tokens": 10}, {"loss": 2.5, "tokens": 20}, {"tokens": 20}, {"loss": 2.0, "tokens": 20}]
    log.write_text("".join(json.dumps(r) + "\n" for r in rows) + '{"loss": 1.')
    curve = read_curve(read_lines(log))
    assert (curve.tokens, curve.loss) == ([10, 20], [3.0, 2.0])
    log.write_text('{"loss": 1.\n{"loss": 2.0, "tokens": 20}\n')
    with pytest.raises(ContractError, match="line 1 is not JSON"):
        read_lines(log)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("/home/me/data/rows.jsonl", "(local)/rows.jsonl"),
        ("~/rows.jsonl", "(local)/rows.jsonl"),
        (r"C:\Users\me\rows.jsonl", "(local)/rows.jsonl"),
        ("file:///srv/data/x.jsonl", "(local)/x.jsonl"),
        ("read from /srv/data/x.jsonl twice", "read from (local)/x.jsonl twice"),
        ("owner/name and/or tokens/s", "owner/name and/or tokens/s"),
        ("https://huggingface.co/owner/name", "https://huggingface.co/owner/name"),
        ("key hf_AbCdEfGh0123456789", "key ***"),
    ],
)
def test_paths_and_tokens_are_cleaned_and_nothing_else(before: str, after: str) -> None:
    assert clean({"a": [before]}) == {"a": [after]}


def test_numbers_read_well() -> None:
    assert (points(-0.0001), points(0.05), points(-0.123)) == ("0.0", "+5.0", "-12.3")
    assert (p_value(0.0004), p_value(0.031), p_value(0.5)) == ("< 0.001", "0.031", "0.50")
    assert (duration(0), duration(12.34), duration(245), duration(3780)) == ("—", "12.3 s", "4 min 05 s", "1 h 03 min")
    assert (
        table([("x|y", "1")], {"a": lambda row: row[0], "b": lambda row: row[1]})
        == "| a    |   b |\n| ---- | --: |\n| x\\|y |   1 |"
    )


def test_exams_of_different_machines_are_told_apart_by_their_precision(build_chain: BuildChain) -> None:
    chain = load_chain(build_chain(), "merge")
    precisions = {"base": "bfloat16", "merge": "float32"}
    told = tuple(
        replace(c, exam={**c.exam, "precision": precisions[c.name]} if c.name in precisions else c.exam)
        for c in chain.checkpoints
    )
    (sentence,) = exam_warnings(replace(chain, checkpoints=told))
    assert "same precision: `base` in bfloat16; `merge` in float32. Small differences" in sentence
    assert exam_warnings(replace(chain, checkpoints=told[:1])) == []


def test_an_exam_with_unbalanced_answers_is_said_to_be_one(build_chain: BuildChain) -> None:
    chain = load_chain(build_chain(), "merge")
    assert exam_warnings(chain) == []
    for checkpoint in chain.checkpoints:
        for record in checkpoint.records:
            if record["side"] == "domain":
                cast(dict[str, Any], record)["answer"] = 0
    (sentence,) = exam_warnings(chain)
    assert (
        "The right answers of the domain exam are unbalanced. Always giving the most common one scores 100.0%"
        in sentence
    )


EVIL = (
    "T\n---\n# H1\n\n[x](javascript:alert(1)) ![p](http://evil/p.png) <img src=http://evil/i.png> <script>a</script>\n"
    "```\n</details>\n| a | b |\n`code` \x1b[2J\u202e $x$ {{jinja}} --- &lt;"
)


def test_hostile_texts_in_every_declared_field_stay_texts(
    build_chain: BuildChain, card_context: BuildContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("title", "licence", "role"):
        monkeypatch.setitem(conftest.SOURCE, key, EVIL)
    monkeypatch.setattr(conftest.Corpus, "domain_title", EVIL)
    base = {"id": EVIL, "title": EVIL, "origin": "hub", "revision": EVIL, "licence": EVIL, "base_model": EVIL}
    context = card_context(build_chain(base=base), intended_use=EVIL, limits_of_use=EVIL, tags=[EVIL], licence=EVIL)
    card.run(context)
    text = (context.out / "README.md").read_text(encoding="utf-8")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", text)
    head, _, body = text.removeprefix("---\n").partition("\n---\n")
    facts = yaml.safe_load(head)
    assert any(tag.startswith("T --- # H1 [x](javascript") for tag in facts["tags"])
    assert "evil" not in str(facts["model-index"][0]["name"])
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(body)
    inner = [child for token in tokens for child in token.children or ()]
    assert {str(child.attrs["src"]) for child in inner if child.type == "image"} == {"exam.png", "loss.png"}
    assert [child.attrs["href"] for child in inner if child.type == "link_open"] == []
    assert [child for child in inner if child.type == "html_inline"] == []
    blocks = "".join(token.content for token in tokens if token.type == "html_block")
    assert set(re.findall(r"</?\w+", blocks)) == {"<details", "<summary", "</summary", "</details"}
    headings = [tokens[number + 1].content for number, token in enumerate(tokens) if token.type == "heading_open"]
    assert headings[1:] == [heading.lstrip("# ") for heading in re.findall(r"^##.*$", body, re.M)]
    assert "H1" not in "".join(headings[1:])
