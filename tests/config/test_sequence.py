"""Several domains in one chain: which stages there are, what each of them is called, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from common.config.pipeline import load_pipeline, parse_pipeline, read_pipeline
from common.config.resolve import Resolved, resolve
from common.config.sequence import assemble, expand, name_of, read_domains, resolve_members
from common.errors import ConfigError
from tests.conftest import REPOSITORY, training

WORDS = {"domains": "medical,legal"}


def resolved(words: dict[str, str] | None = None, repository: Path = REPOSITORY) -> Resolved:
    given = {**WORDS, **(words or {})}
    return assemble(resolve_members(read_domains(given, repository), given, repository))


def test_a_chain_has_a_stage_for_each_domain_and_every_exam_for_every_checkpoint() -> None:
    run = resolved()
    nodes = {node.name: node for node in run.nodes}
    assert [name for name, node in nodes.items() if node.kind == "cpt"] == ["cpt-medical", "cpt-legal"]
    assert nodes["cpt-medical"].parent == "base"
    assert nodes["cpt-legal"].parent == "cpt-medical"
    exams = [(node.parent, node.domain) for node in run.nodes if node.kind == "evaluate"]
    assert exams == [(name, domain) for name in ("base", "cpt-medical", "cpt-legal") for domain in ("medical", "legal")]
    assert run.pipeline.publish == "cpt-legal"
    assert run.config.domain == "medical_legal"


def test_stages_have_the_settings_of_their_domain_and_the_names_of_its_own_run() -> None:
    run = resolved()
    legal = resolve({"domain": "legal", "pipeline": "cpt-only"}, REPOSITORY)
    assert run.config.stages["cpt-legal"] == legal.config.stages["cpt"]
    assert training(run.config, "cpt-legal").tokens != training(run.config, "cpt-medical").tokens
    node = next(node for node in run.nodes if node.name == "cpt-legal")
    assert (node.stored, node.called_parent) == ("cpt", "cpt")
    exam = next(node for node in run.nodes if node.name == "exam-cpt-legal-on-medical")
    assert (exam.stored, exam.called_parent, exam.domain) == ("exam-cpt", "cpt", "medical")
    card = next(node for node in run.nodes if node.name == "card")
    assert (card.stored, card.domain) == ("card", "")
    assert "medical: Not for clinical use" in run.config.stages["card"].limits_of_use  # type: ignore[attr-defined]  # a card's
    assert "legal: Not legal advice" in run.config.stages["card"].limits_of_use  # type: ignore[attr-defined]  # a card's


def test_one_word_sets_all_domains_and_another_a_single_one() -> None:
    run = resolved({"cpt.tokens": "65536", "cpt-legal.tokens": "32768"})
    assert [training(run.config, f"cpt-{domain}").tokens for domain in ("medical", "legal")] == [65536, 32768]


def test_specialists_stand_apart_and_their_merges_name_all_of_them() -> None:
    run = resolved({"pipeline": "specialists"})
    nodes = {node.name: node for node in run.nodes}
    assert nodes["specialist-legal"].parent == "base"
    assert nodes["specialist-legal"].stored == "cpt"
    assert nodes["ties"].inputs == ("base", "specialist-medical", "specialist-legal")
    assert list(run.config.stages["ties"].models) == ["specialist-medical", "specialist-legal"]  # type: ignore[attr-defined]  # a merge's


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"domains": "medical,leagl"}, r"There is no domain 'leagl'\. Did you mean 'legal'"),
        ({"domains": "medical,medical"}, "medical is named twice"),
        ({"domains": "medical,legal,./domains/legal"}, "legal is named twice"),
        ({"domains": "medical"}, "domains=medical names one domain"),
        ({"domains": "medical,,legal"}, "expected names with commas between them"),
        ({"domain": "finance"}, "domain=finance and domains=medical,legal are both set"),
        ({"data": "my.yaml"}, "data=my.yaml belongs to one domain"),
        ({"pipeline": "full"}, "pipeline=full is for one domain. For several there is sequence, specialists"),
        ({"pipeline": "sequnce"}, "There is no pipeline 'sequnce'. Did you mean 'sequence'"),
        ({"cpt-legl.tokens": "4096"}, r"cpt-legl .*Did you mean 'cpt-legal'"),
        (
            {"run.allow_code": "other"},
            "run.allow_code=other: 'other' is none of the domains; expected some of medical, legal",
        ),
        ({"run.allow_code": "legal,legal@1"}, "'legal' is named twice; expected some of medical, legal"),
    ],
)
def test_what_does_not_go_together_is_refused(
    words: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(ConfigError, match=expected):
        resolved(words)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("pipelines", "domains/medical", "domains/legal"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    return tmp_path


def test_a_domain_with_another_model_has_another_base(repository: Path) -> None:
    path = repository / "domains" / "legal" / "stages.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("all:\n", "all:\n  model: {vocabulary_size: 1500}\n", 1), encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"one base, and model.vocabulary_size is 2048 for medical and 1500 for legal"
    ):
        resolved(repository=repository)


def test_data_with_blocks_are_cleaned_before(repository: Path) -> None:
    path = repository / "domains" / "legal" / "data.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "\nblocks: [exact]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="The data of legal list blocks that clean rows"):
        resolved({"data": "hub"}, repository)


HEAD = "description: A chain.\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stages: {base: {kind: base}}\nexam: [base]\npublish: base\n", "no stage says each"),
        (
            "stages: {base: {kind: base}, cpt: {kind: cpt, from: base, each: chain}, sft: {kind: sft, from: cpt}}\n"
            "exam: [base]\npublish: sft\n",
            "stages.sft reads rows; say each",
        ),
        (
            "stages: {base: {kind: base}, cpt: {kind: cpt, from: base, each: apart}}\nexam: [base]\npublish: cpt\n",
            "publish: 'cpt' is one stage for each domain, apart",
        ),
        (
            "stages: {base: {kind: base}, cpt: {kind: cpt, from: base, each: chain}, "
            "mix: {kind: merge, from: cpt, with: [base], each: apart}}\nexam: [base]\npublish: cpt\n",
            "stages.mix.each: a merge names the models that it takes",
        ),
        (
            "stages: {base: {kind: base}, sft: {kind: sft, from: base, each: apart}, "
            "judge: {kind: reward, from: sft, each: apart}, "
            "other: {kind: reward, from: base, each: apart, settings: judge}, "
            "tuned: {kind: rloo, from: sft, with: [judge, other], each: apart}, "
            "mix: {kind: merge, from: base, with: [tuned]}}\nexam: [base]\npublish: mix\n",
            "stages.tuned-medical reads judge-medical and other-medical, which are both 'judge' in a run",
        ),
    ],
)
def test_a_pipeline_for_several_domains_says_whose_each_stage_is(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text(HEAD + text, encoding="utf-8")
    with pytest.raises(ConfigError, match=expected):
        expand(read_pipeline(tmp_path, "odd"), ["medical", "legal"])


def test_each_belongs_into_the_folder_of_sequences(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "pipelines" / "sequences" / "sequence.yaml", tmp_path / "odd.yaml")
    with pytest.raises(ConfigError, match=r"stages.cpt.each: a pipeline for several domains stands in .*sequences"):
        load_pipeline(tmp_path, "odd")
    (tmp_path / "odd.yaml").write_text(
        HEAD + "stages: {base: {kind: base, domain: legal}}\nexam: [base]\npublish: base\n", encoding="utf-8"
    )
    with pytest.raises(ConfigError, match="domain: unknown key"):
        load_pipeline(tmp_path, "odd")


def test_fine_tuning_of_each_domain_continues_from_its_own_checkpoint(tmp_path: Path) -> None:
    stages = (
        "stages: {base: {kind: base}, cpt: {kind: cpt, from: base, each: chain}, "
        "sft: {kind: sft, from: cpt, each: apart}, blend: {kind: merge, from: cpt, with: [sft]}}\n"
    )
    (tmp_path / "odd.yaml").write_text(f"{HEAD}{stages}exam: [base, sft]\npublish: blend\n", encoding="utf-8")
    found = expand(read_pipeline(tmp_path, "odd"), ["medical", "legal"])
    assert found.stages["sft-medical"].parent == "cpt-medical"
    assert (found.stages["blend"].parent, found.stages["blend"].others) == ("cpt-legal", ("sft-medical", "sft-legal"))
    assert parse_pipeline(found.model_dump(by_alias=True), "again") == found, "a frozen plan keeps it"


def test_a_long_sequence_has_a_short_name() -> None:
    many = [f"domain-number-{number}" for number in range(20)]
    assert len(name_of(many)) <= 100
    assert name_of(many) != name_of(many[::-1])
