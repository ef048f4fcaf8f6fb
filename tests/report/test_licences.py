"""The licence of what is published: rolled up over the chain, asked for where it is not known, set by who may."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from common.config.resolve import resolve
from common.config.stage_sections import Layer
from common.config.stages import PublishSettings
from common.config.variants import with_layers
from common.engine.plan import make_plan
from common.errors import ConfigError
from common.models.licence import roll_up
from common.report.chain import Chain, load_chain
from common.report.licences import (
    base_record,
    licence_facts,
    licence_notes,
    licence_of_chain,
    restated,
    trained_on,
)
from common.stage import StageContext
from common.stages import card
from common.store.artifacts import Artifact
from tests.conftest import REPOSITORY
from tests.report.conftest import SOURCE, Corpus

BuildChain = Callable[..., dict[str, Artifact]]
BuildContext = Callable[..., StageContext]
BASE = {"id": "ours", "title": "local checkpoint", "origin": "local", "licence": "llama3"}


def test_exams_do_not_count_and_rows_do(build_chain: BuildChain) -> None:
    chain = load_chain(build_chain(), "merge")
    assert [source["id"] for source in trained_on(chain, "merge")] == ["someone/notes"]
    manifests = {
        name: {**m, "rows": [{**row, "role": "questions_domain"} for row in m["rows"]]}
        for name, m in chain.manifests.items()
    }
    assert trained_on(replace(chain, manifests=manifests), "merge") == []
    assert licence_of_chain(replace(chain, manifests=manifests), None).id == "unknown"
    assert licence_of_chain(chain, None).id == "cc-by-4.0"


def test_what_settings_and_data_say_today_counts_before_what_was_noted(
    build_chain: BuildChain, card_context: BuildContext
) -> None:
    context = card_context(build_chain(base={**BASE, "licence": None}))
    card.run(context)
    said = (context.out / "README.md").read_text(encoding="utf-8")
    assert "license: unknown" in said
    assert "- The licence of `ours` is not known.\n" in said
    assert "model.licence=" not in said  # the next step is for who runs it: `licence_notes`
    model = context.config.model.model_copy(update={"licence": "mit"})
    today = Corpus({**SOURCE, "licence": "cc-by-nc-4.0"})
    again = replace(context, config=context.config.model_copy(update={"model": model}), corpus=cast("Any", today))
    report = card.run(again)
    assert report.metrics["licence"] == "cc-by-nc-4.0"
    said = (context.out / "README.md").read_text(encoding="utf-8")
    assert "license: cc-by-nc-4.0" in said
    assert "cc-by-nc-4.0, the strictest of what it is made from: `someone/notes` (cc-by-nc-4.0)." in said
    assert "- `someone/notes` (cc-by-nc-4.0) may not be used commercially; `ours` (mit) asks for less." in said
    assert json.loads((context.out / "card.json").read_text())["licences"]["base"] == "`ours`"


def test_a_custom_licence_is_other_with_its_name(build_chain: BuildChain, card_context: BuildContext) -> None:
    context = card_context(build_chain(base={**BASE, "licence": "Acme terms"}))
    card.run(context)
    said = (context.out / "README.md").read_text(encoding="utf-8")
    assert "license: other\nlicense_name: Acme terms\n" in said


def test_a_licence_that_is_set_is_never_freer_than_the_base_s(build_chain: BuildChain) -> None:
    inputs = build_chain(base=BASE)
    chain = load_chain(inputs, "merge")
    with pytest.raises(ConfigError, match=r"publish\.licence=mit, but `ours` is under llama3"):
        licence_of_chain(chain, "mit")

    def under(licence: str) -> Chain:
        sources = [{**BASE, "role": "base model", "licence": licence}]
        return replace(chain, manifests={**chain.manifests, "base": {**chain.manifests["base"], "sources": sources}})

    found = licence_of_chain(under("mit"), "apache-2.0")
    assert (found.id, found.asked) == ("apache-2.0", "apache-2.0")
    assert found.sentence.startswith("apache-2.0, as publish.licence says; the strictest of what it is made from: ")
    with pytest.raises(ConfigError, match=r"but `ours` is under cc-by-sa-4\.0, which holds for what is made from it"):
        licence_of_chain(under("cc-by-sa-4.0"), "cc-by-nc-4.0")


def made_manifest(folder: Path, licence: str) -> str:
    """Write a data file whose text is under a licence, and return its path."""
    rows = {"text": [{"text": f"text number {i}"} for i in range(9)]}
    rows["chat"] = [{"question": f"what is {i}?", "answer": str(i)} for i in range(9)]
    rows["exam"] = [{"question": f"how many are {i}?", "answer": str(i)} for i in range(9)]
    rows["pairs"] = [{"prompt": "a", "chosen": f"b{i}", "rejected": "c"} for i in range(9)]
    for name, lines in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    (folder / "data.yaml").write_text(
        "title: Made\nsources:\n"
        f"  - {{id: notes, role: cpt, path: text.jsonl, columns: {{text: text}}, licence: {licence}}}\n"
        "  - {id: old, role: replay, path: text.jsonl, columns: {text: text}, licence: mit}\n"
        "  - {id: chat, role: sft, path: chat.jsonl, columns: {question: question, answer: answer}, licence: mit}\n"
        "  - {id: pairs, role: preference, path: pairs.jsonl, licence: mit,\n"
        "     columns: {prompt: prompt, chosen: chosen, rejected: rejected}}\n"
        "  - {id: first, role: pretrain, path: text.jsonl, columns: {text: text}, licence: mit}\n"
        "  - {id: exam, role: eval, side: domain, path: exam.jsonl, columns: {question: question, answer: answer},\n"
        "     match: text, licence: unknown}\n",
        encoding="utf-8",
    )
    return str(folder / "data.yaml")


def planned(out: Path, **words: str) -> Any:
    return make_plan(resolve({"domain": "medical", "out": str(out), **words}, REPOSITORY))


def test_embedded_knowledge_is_ours(tmp_path: Path) -> None:
    for domain in ("medical", "multilingual", "legal", "finance", "cybersecurity", "math"):
        licence = make_plan(resolve({"domain": domain, "out": str(tmp_path)}, REPOSITORY)).licence
        assert (licence.id, licence_notes(licence)) == ("apache-2.0", [])


def test_a_plan_knows_the_licence_of_its_data(tmp_path: Path) -> None:
    assert planned(tmp_path, data=made_manifest(tmp_path, "cc-by-4.0")).licence.id == "cc-by-4.0"
    licence = planned(tmp_path, data=made_manifest(tmp_path, "unknown")).licence
    assert licence_notes(licence) == [
        "the licence of `notes` is not known; look where it comes from, and write it beside the source "
        "(licence: <id>), such as apache-2.0."
    ]


def test_a_conflict_names_the_sources_and_the_setting(tmp_path: Path) -> None:
    data = Path(made_manifest(tmp_path, "cc-by-sa-4.0"))
    text = data.read_text(encoding="utf-8").replace("match: text", "MATCH").replace("licence: mit", "licence: gpl-3.0")
    data.write_text(text.replace("MATCH", "match: text"), encoding="utf-8")
    licence = planned(tmp_path, data=str(data)).licence
    assert licence.sentence.startswith("other (conflicting-licences), ")
    (said,) = licence_notes(licence)
    assert "`notes` (cc-by-sa-4.0)" in said
    assert re.search(r"Take `\w+` or `\w+` out of the data, or set publish\.licence=<id> if you know that they", said)
    assert licence_facts(licence) == list(licence.conflicts)  # the card gives no advice
    settled = planned(tmp_path, data=str(data), **{"publish.licence": "gpl-3.0"}).licence
    assert licence_notes(settled) == list(settled.conflicts)


def test_only_sources_are_taken_out_of_the_data() -> None:
    (said,) = licence_notes(roll_up(("`ours`", "gpl-3.0"), [("`web`", "cc-by-sa-4.0")]))
    assert "Take `web` out of the data, or set publish.licence=<id>" in said


def test_an_id_that_is_not_known_is_told(tmp_path: Path) -> None:
    licence = planned(tmp_path, **{"publish.licence": "banana"}).licence
    assert (licence.id, licence.name) == ("other", "banana")
    assert licence_notes(licence) == [
        "publish.licence=banana is no id that is known here; the card says `other` with this as its name."
    ]
    assert licence_notes(planned(tmp_path, **{"publish.licence": "mit"}).licence) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            {"model.path": "acme/model", "model.licence": ""},
            r"model\.licence .*: expected text that is not empty; got ''",
        ),
        ({"model.licence": "mit"}, r"model\.licence=mit is the licence of a checkpoint, and no model\.path gives one"),
        ({"publish.licence": ""}, r"publish\.licence .*: expected text that is not empty; got ''"),
    ],
)
def test_a_licence_that_is_none_is_refused(words: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        planned(tmp_path, **words)
    assert "\n" not in str(error.value).strip()


def test_what_is_not_known_is_asked_for_before_it_goes_to_the_hub(tmp_path: Path) -> None:
    data = made_manifest(tmp_path, "unknown")
    with pytest.raises(ConfigError, match=r"publish\.to=hub:acme/med: the licence of `notes` is not known"):
        planned(tmp_path, data=data, **{"publish.to": "'hub:acme/med'"})
    folder = {"model.path": "acme/model", "model.revision": "a" * 40, "publish.to": "'hub:acme/med'"}
    with pytest.raises(ConfigError, match=r"licence of `acme/model` is not known; .*set model\.licence=<id>"):
        planned(tmp_path, **folder)
    assert planned(tmp_path, **folder, **{"model.licence": "gemma"}).licence.id == "gemma"


def test_only_the_command_line_may_ask_for_less_than_the_data_do(tmp_path: Path) -> None:
    data = made_manifest(tmp_path, "cc-by-sa-4.0")
    assert planned(tmp_path, data=data, **{"publish.licence": "apache-2.0"}).licence.id == "apache-2.0"
    run = resolve({"domain": "medical", "out": str(tmp_path), "data": data}, REPOSITORY)
    with pytest.raises(
        ConfigError, match=r"publish\.licence=apache-2\.0 \(domain medical\) allows more than `notes` \(cc-by-sa-4"
    ):
        make_plan(with_layers(run, [Layer("domain medical", {"publish": {"licence": "apache-2.0"}})]))
    stricter = with_layers(run, [Layer("domain medical", {"publish": {"licence": "cc-by-nc-sa-4.0"}})])
    assert make_plan(stricter).licence.id == "cc-by-nc-sa-4.0"


@pytest.mark.parametrize("asked", ["apache-2.0", "llama3"])
def test_a_base_s_own_terms_stay(asked: str, tmp_path: Path) -> None:
    words = {"profile": "qwen2.5-72b", "data": "embedded", "publish.licence": asked}
    with pytest.raises(ConfigError, match=rf"publish\.licence={asked}, but `Qwen/Qwen2\.5-72B` is under other"):
        planned(tmp_path, **words)


def test_a_checkpoint_whose_files_state_another_licence_now_is_under_that(
    build_chain: BuildChain, card_context: BuildContext, tmp_path: Path
) -> None:
    inputs = build_chain(base={**BASE, "licence": "mit"})
    (tmp_path / "README.md").write_text("---\nlicense: gemma\n---\n", encoding="utf-8")
    model = card_context(inputs).config.model.model_copy(update={"path": str(tmp_path)})
    found = restated(load_chain(inputs, "merge"), model, cast("Any", Corpus()))
    assert base_record(found.manifests.values()) == {**BASE, "role": "base model", "licence": "gemma"}


def test_restating_keeps_all_else(build_chain: BuildChain, card_context: BuildContext) -> None:
    inputs = build_chain()
    chain = load_chain(inputs, "merge")
    assert restated(chain, card_context(inputs).config.model, cast("Any", Corpus())) == chain
    assert PublishSettings().licence is None
