"""The stage `tokenizer` on the embedded medical domain: what it commits, what it reports, what it refuses."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.config.kinds import kind_of
from common.config.resolve import Resolved, resolve
from common.config.vocabulary import TokenizerSettings
from common.console import Console
from common.engine.corpora import open_corpus
from common.engine.plan import make_plan
from common.engine.preflight.trial import try_rows
from common.errors import ConfigError
from common.models import checkpoint, contracts
from common.report.chain import Chain
from common.report.vocabulary_notes import vocabulary_notes
from common.stage import StageContext
from common.stages.tokenizer import encode, run
from tests.conftest import QUICK, REPOSITORY, linked

WORDS = {key: value for key, value in QUICK.items() if not key.startswith("dpo.")} | {"domain": "medical"}
WORDS |= {"pipeline": "vocabulary", "vocabulary.min_frequency": "8"}


def context_of(finished: Path, folder: Path, **settings: Any) -> StageContext:
    """Return the context of the stage on the quick base of a finished run."""
    resolved = resolve({**WORDS, "out": str(finished)}, REPOSITORY)
    base = linked(finished, "base")
    assert base is not None
    given = resolved.config.stages["vocabulary"].model_copy(update=settings)
    for name in ("out", "work"):
        (folder / name).mkdir()
    return StageContext(
        "vocabulary", "tokenizer", given, resolved.config, {"base": base}, "base", open_corpus(resolved),
        folder / "out", folder / "work", folder / "models", Console("quiet"),
    )  # fmt: skip


def test_it_commits_a_model_that_reads_the_domain_in_fewer_tokens(finished: Path, tmp_path: Path) -> None:
    context = context_of(finished, tmp_path, pad_to_multiple_of=16)
    report = run(context)
    metrics, parent = report.metrics, checkpoint.load_tokenizer(context.parent_artifact.path, context.config.model)
    model, tokenizer = checkpoint.load(context.out, context.config.model)
    assert 20 < metrics["added"] <= metrics["asked"]
    assert metrics["ids"]["after"] - metrics["ids"]["before"] == metrics["added"]
    assert metrics["rows"]["after"] == model.get_input_embeddings().weight.shape[0]
    assert metrics["rows"]["after"] % 16 == 0
    assert tokenizer.chat_template == parent.chat_template
    contracts.check_stop_tokens(model, tokenizer)
    contracts.check_tied(model)

    domain, general = ({one["side"]: one for one in metrics["cut"]}[side] for side in ("domain", "general"))
    assert domain["after"] < 0.9 * domain["before"]
    assert general["replaced"] < domain["replaced"]
    held_out = [row["text"] for row in context.corpus.rows("text_domain")]
    assert domain["after"] == sum(map(len, encode(tokenizer, held_out)))
    assert domain["bytes"] == sum(len(text.encode()) for text in held_out)
    assert {row["source"] for row in report.rows} == {row["source"] for row in context.corpus.rows("cpt")}
    assert sum(row["rows_out"] for row in report.rows) > 100

    manifest = {"kind": "tokenizer", "metrics": metrics}
    heading, sentence, table, _ = vocabulary_notes(Chain((), "base", {"vocabulary": manifest}))
    assert heading == "### Vocabulary"
    assert sentence.startswith(f"`vocabulary` added {metrics['added']} tokens to a tokenizer of")
    assert "| domain " in table
    assert f"{domain['after'] / domain['characters']:.3f}" in table


def test_new_tokens_take_the_spare_rows_of_a_padded_vocabulary(finished: Path, tmp_path: Path) -> None:
    """As of Qwen2.5 and Qwen3, whose tables have more rows than the tokenizer has ids."""
    context = context_of(finished, tmp_path, add=20)
    model, tokenizer = checkpoint.load(context.parent_artifact.path, context.config.model)
    rows = len(tokenizer) + 64
    model.resize_token_embeddings(rows, mean_resizing=False)
    checkpoint.save(model, tokenizer, tmp_path / "padded", "float32")
    padded = replace(context.parent_artifact, path=tmp_path / "padded")
    metrics = run(replace(context, inputs={"base": padded})).metrics
    assert (metrics["added"], metrics["rows"]) == (20, {"before": rows, "after": rows})
    assert metrics["logit_difference"] < 1e-6


def test_rows_of_the_exam_are_not_learned_from(finished: Path, tmp_path: Path) -> None:
    context = context_of(finished, tmp_path)
    asked = [row["question"] for row in context.corpus.rows("questions_domain")][:3]
    rows = [{"text": text, "source": "copied"} for text in asked]
    rows += [{"text": f"quizzical xylophone {number}", "source": "own"} for number in range(30)]

    class Corpus:
        """The domain's corpus, whose cpt rows are replaced."""

        def __getattr__(self, name: str) -> Any:
            return getattr(context.corpus, name)

        def rows(self, role: str) -> Any:
            return iter(rows) if role == "cpt" else context.corpus.rows(role)

        def counts(self, role: str) -> Mapping[str, Any]:
            return {} if role == "cpt" else context.corpus.counts(role)

    report = run(replace(context, corpus=Corpus()))
    dropped = {row["source"]: sum(row["dropped"].values()) for row in report.rows}
    assert dropped == {"copied": 3, "own": 0}
    assert "xylophone" in " ".join(report.metrics["examples"])


def test_a_tokenizer_that_has_the_words_is_refused_before_anything_is_spent(finished: Path, tmp_path: Path) -> None:
    resolved = resolve({**WORDS, "out": str(tmp_path), "vocabulary.min_frequency": "1000000"}, REPOSITORY)
    expected = (
        r"^Stage vocabulary has no token to add: the tokenizer has the words of the domain already\. In [\d,]+ "
        r"characters no two of its tokens stand side by side 1000000 times \(vocabulary\.min_frequency\)\. Lower it"
    )
    with pytest.raises(ConfigError, match=expected):
        try_rows(make_plan(resolved), Console("quiet"))
    context = context_of(finished, tmp_path, min_frequency=1_000_000)
    with pytest.raises(ConfigError, match=expected):
        run(context)
    assert list(context.out.iterdir()) == []


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [("add", "0", "vocabulary.add"), ("min_frequency", "1", "min_frequency"), ("initialise", "zero", "mean.*normal")],
)
def test_settings_out_of_range_are_refused(key: str, value: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        resolve({**WORDS, f"vocabulary.{key}": value}, REPOSITORY)


def in_pipeline(folder: Path, stages: str) -> Resolved:
    """Return a run of a pipeline with some stages behind a base and its vocabulary."""
    shutil.copytree(REPOSITORY / "pipelines", folder / "pipelines")
    for name in ("common", "domains"):
        (folder / name).symlink_to(REPOSITORY / name)
    text = "description: Own.\nstages:\n  base: {kind: base}\n  vocabulary: {kind: tokenizer, from: base}\n" + stages
    (folder / "pipelines" / "own.yaml").write_text(f"{text}exam: [base, sft]\npublish: sft\n", encoding="utf-8")
    return resolve({"domain": "medical", "pipeline": "own", "out": str(folder / "store")}, folder)


def test_models_of_two_tokenizers_are_not_merged(tmp_path: Path) -> None:
    stages = (
        "  cpt: {kind: cpt, from: vocabulary}\n  sft: {kind: sft, from: cpt}\n"
        "  merge: {kind: merge, from: sft, with: [base]}\n"
    )
    text = "settings: {merge: {method: linear, models: {sft: {weight: 0.9}, base: {weight: 0.1}}}}\n"
    expected = (
        r"^merge: 'sft' and 'base' have different tokenizers, those of the stages vocabulary and base, so one id "
        r"means two tokens\."
    )
    resolved = in_pipeline(tmp_path, f"{stages}{text}")
    with pytest.raises(ConfigError, match=expected):
        make_plan(resolved)


def test_a_reward_model_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    stages = (
        "  reward: {kind: reward, from: base}\n  sft: {kind: sft, from: vocabulary}\n"
        "  rloo: {kind: rloo, from: sft, with: [reward]}\n"
    )
    with pytest.raises(ConfigError, match=r"^rloo: '\w+' and '\w+' have different tokenizers"):
        make_plan(in_pipeline(tmp_path, stages))


def test_its_kind_says_that_the_tokenizer_changes() -> None:
    assert kind_of("tokenizer").changes_tokenizer
    assert kind_of("tokenizer").settings is TokenizerSettings
    assert not kind_of("cpt").changes_tokenizer
