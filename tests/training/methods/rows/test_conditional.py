"""Control tokens by score: where they stand, what is counted, and that generation neither writes them nor lacks one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from common.config.resolve import resolve
from common.config.schema import Config
from common.config.stages import CptSettings, SftSettings
from common.engine.plan import make_plan
from common.engine.preflight.sources import check_sources
from common.errors import ConfigError, DataError
from common.models import checkpoint
from common.training.methods.rows.conditional import (
    BAD,
    BARE,
    GOOD,
    ConditionalSettings,
    finish,
    judge,
    problem,
    rewrite,
)  # fmt: skip
from tests.conftest import REPOSITORY
from tests.training.methods.scored import NUMBER, Scored, built, context

PLAIN = {"by": "bad", "threshold": 0.5, "drop": 0.0}
LINES = "def f():\n\n    x=1\r\n  \nreturn"


def row(text: str, score: float, lines: list[float] | None = None) -> dict[str, Any]:
    return {"text": text, "source": "book", "scores": {"bad": score}, "line_scores": {"bad": lines or []}}


@pytest.mark.parametrize(
    ("score", "better", "token"),
    [(0.0, "lower", "<|good|>"), (0.5, "lower", "<|good|>"), (0.5000001, "lower", "<|bad|>"),
     (0.5, "higher", "<|good|>"), (0.4999999, "higher", "<|bad|>"), (1.0, "higher", "<|good|>")],
)  # fmt: skip
def test_a_text_is_good_up_to_the_threshold_or_from_it_on(score: float, better: str, token: str) -> None:
    found = rewrite(row("A text.", score), ConditionalSettings.model_validate({**PLAIN, "better": better}), 0)
    assert found["text"] == token + "A text."
    assert found["control_tokens"] == ("<|good|>", "<|bad|>")
    assert found["changed"] == ((GOOD if token == "<|good|>" else BAD),)


def test_each_line_that_says_something_has_its_own_token() -> None:
    given = row(LINES, 9.0, [0.1, 0.9, 0.5])
    found = rewrite(given, ConditionalSettings.model_validate({**PLAIN, "unit": "line"}), 0)
    assert found["text"] == "<|good|>def f():\n\n<|bad|>    x=1\r\n  \n<|good|>return"
    assert found["changed"] == (GOOD, BAD)


@pytest.mark.parametrize("unit", ["document", "line"])
def test_a_share_of_the_units_has_no_token_and_always_the_same_ones(unit: str) -> None:
    settings = ConditionalSettings.model_validate({**PLAIN, "unit": unit, "drop": 0.25})
    given = [row(f"text {number}\nline", 0.0, [0.0, 0.0]) for number in range(2000)]
    found = [rewrite(one, settings, 7) for one in given]
    marks = sum(one["text"].count("<|good|>") for one in found)
    units = 2000 * (1 if unit == "document" else 2)
    assert marks / units == pytest.approx(0.75, abs=0.03)  # 4 standard errors of 2,000
    assert found == [rewrite(one, settings, 7) for one in given]
    assert found != [rewrite(one, settings, 8) for one in given]


def test_a_text_that_names_a_token_and_a_conversation_get_none() -> None:
    settings = ConditionalSettings.model_validate(PLAIN)
    for given in (row("Say <|good|> twice.", 0.0), {"messages": [], "source": "chat", "scores": {"bad": 0.0}}):
        assert rewrite(given, settings, 0) == given | {"changed": (BARE,)}


@pytest.mark.parametrize(
    ("lines", "message"), [(None, "has no score bad of its lines"), ([0.1], "3 lines and 1 score")]
)
def test_lines_without_their_scores_are_refused(lines: list[float] | None, message: str) -> None:
    given = row(LINES, 0.0)
    given["line_scores"] = {} if lines is None else {"bad": lines}
    with pytest.raises(ValueError, match=message):
        rewrite(given, ConditionalSettings.model_validate({**PLAIN, "unit": "line"}), 0)


def test_packed_rows_have_the_tokens_of_their_documents_and_replay_has_none(
    tokenizer: Any, config: Config, tmp_path: Path
) -> None:
    given = context(tmp_path / "a", config, {"conditional": PLAIN}, replay=0.2, epochs=None, tokens=4096)
    rows = built(given, tokenizer)
    firsts: Counter[str] = Counter()
    for one in rows.dataset:
        start = 0
        for length in one["seq_lengths"]:
            text = tokenizer.decode(one["input_ids"][start : start + length])
            firsts[text.split()[0]] += 1
            start += length
            assert text.startswith(("<|good|> nice", "<|bad|> bad", " plain"))
    assert set(firsts) == {"<|good|>", "<|bad|>", "plain"}
    assert rows.methods == {"conditional": {"good": NUMBER * 2 // 3, "bad": NUMBER // 3, "without": 0}}
    (count,) = (count for count in rows.counts if count.source == "book")
    assert count.changed == {GOOD: NUMBER * 2 // 3, BAD: NUMBER // 3}


def test_a_threshold_with_all_on_one_side_is_refused_with_counts(
    tokenizer: Any, config: Config, tmp_path: Path
) -> None:
    expected = (
        r"^cpt\.methods\.conditional: with bad <= 2 all 120 rows that got a token are <\|good\|>, so that it tells "
        r"nothing \(0 got none\)\. The lowest score is 0\.1, the median 0\.1, the highest 1\. Set a threshold that "
        r"parts them\.$"
    )
    with pytest.raises(DataError, match=expected):
        built(context(tmp_path / "a", config, {"conditional": {**PLAIN, "threshold": 2}}), tokenizer)
    unscored: Any = SimpleNamespace(rows=SimpleNamespace(column_names=["input_ids"]))
    with pytest.raises(ValueError, match=r"bad >= 2 all 4 rows .* are <\|bad\|>"):
        judge({BAD: 4}, unscored, ConditionalSettings(by="bad", threshold=2, better="higher"))


def test_a_row_without_the_score_is_named(tokenizer: Any, config: Config, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"^cpt\.methods\.conditional\.by=bat: a row of the source 'book' has no such score"
    ):
        built(context(tmp_path / "a", config, {"conditional": {**PLAIN, "by": "bat"}}), tokenizer)


def test_generation_never_writes_either_token_and_begins_with_the_good_one(
    tokenizer: Any, model: Any, config: Config, tmp_path: Path
) -> None:
    """A plain AutoModelForCausalLM is asked, whose head finds the two tokens by far the likeliest."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    good, bad = tokenizer.convert_tokens_to_ids(["<|good|>", "<|bad|>"])
    embedding = model.get_input_embeddings().weight
    with torch.no_grad():
        model.model.norm.weight.fill_(1.0)
        model.lm_head.weight.zero_()
        model.lm_head.weight[[good, bad]] = 5.0
        embedding.abs_()  # so that the last hidden state is positive, and both tokens always win
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.layers[0].self_attn.o_proj.weight.zero_()
    checkpoint.save(model, tokenizer, tmp_path / "before", "float32")
    finish(model, tokenizer, ConditionalSettings.model_validate(PLAIN))
    checkpoint.save(model, tokenizer, tmp_path / "after", "float32")
    before, after = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("before", "after"))
    read = AutoTokenizer.from_pretrained(tmp_path / "after")
    prompt = read("<|good|> nice", return_tensors="pt")
    assert prompt.input_ids[0, 0] == good
    how: list[dict[str, Any]] = [{}, {"do_sample": True}, {"num_beams": 2}]
    for options in how:
        plain = before.generate(**prompt, max_new_tokens=6, **options)[0, prompt.input_ids.shape[1] :]
        assert {good, bad} & set(plain.tolist())
        asked = after.generate(**prompt, max_new_tokens=6, **options)[0, prompt.input_ids.shape[1] :]
        assert not {good, bad} & set(asked.tolist())
    alone = after.generate(max_new_tokens=6)[0].tolist()  # without a prompt
    assert alone[0] == good
    assert not {good, bad} & set(alone[1:])
    assert "<|good|>" not in read.decode(alone, skip_special_tokens=True)


def test_what_was_suppressed_before_stays_so(tokenizer: Any, model: Any) -> None:
    model.generation_config.suppress_tokens = [5]
    for _ in range(2):
        finish(model, tokenizer, ConditionalSettings.model_validate(PLAIN))
    good, bad = tokenizer.convert_tokens_to_ids(["<|good|>", "<|bad|>"])
    assert model.generation_config.suppress_tokens == [5, good, bad]


def test_the_chain_gets_the_tokens_where_it_begins() -> None:
    words = {"domain": "medical", "cpt.methods.conditional.good": "<|kind|>"}
    resolved = resolve({**words, "model.control_tokens": "[<|x|>]"}, REPOSITORY)
    assert resolved.config.model.control_tokens == ("<|x|>", "<|kind|>", "<|bad|>")
    assert resolved.origins["model.control_tokens"] == "the methods of cpt"
    assert resolve({"domain": "medical"}, REPOSITORY).config.model.control_tokens == ()


def test_a_plan_names_a_score_that_no_block_gives() -> None:
    plan = make_plan(resolve({"domain": "medical", "cpt.methods.conditional.unit": "document"}, REPOSITORY))
    with pytest.raises(
        DataError, match=r"^cpt\.methods\.conditional\.by=toxicity: no block of the role cpt gives this"
    ):
        check_sources(plan.resolved, plan.resolved.nodes, plan.corpus)
    plan = make_plan(resolve({"domain": "medical", "cpt.methods.conditional.unit": "line"}, REPOSITORY))
    with pytest.raises(DataError, match=r"gives this score of lines\. List the block score with \{function: toxicity"):
        check_sources(plan.resolved, plan.resolved.nodes, plan.corpus)


def test_stages_that_cannot_use_it_say_why() -> None:
    own = ConditionalSettings()
    assert problem(own, CptSettings(tokens=2048, peft="lora")) == ""
    saved = CptSettings(tokens=2048, peft="lora", lora={"modules_to_save": ["lm_head"]})
    assert problem(own, saved).startswith(
        "lora.modules_to_save is set, so that the adapter leaves the rows of <|good|>"
    )
    assert problem(own, CptSettings(tokens=2048, peft="lora", lora={"modules_to_save": ["embed_tokens"]})) == ""
    kept = CptSettings(tokens=2048, train_only="added")
    assert problem(own, kept).startswith("train_only=added leaves the rows of <|good|> and <|bad|> as they were drawn")
    assert problem(own, kept.model_copy(update={"train_also": ("embed_tokens",)})) == ""
    assert "learns from conversations" in problem(own, SftSettings(tokens=2048))
    with pytest.raises(ConfigError, match="good and bad are both 'x'"):
        resolve({"domain": "medical", "cpt.methods.conditional": "{good: x, bad: x}"}, REPOSITORY)


def test_the_same_texts_train_whoever_prepares_them(tokenizer: Any, config: Config, tmp_path: Path) -> None:
    methods = {"conditional": {**PLAIN, "drop": 0.3}}
    one, other = (built(context(tmp_path / name, config, methods), tokenizer) for name in "ab")
    assert list(one.dataset) == list(other.dataset)
    assert Scored().conversations("cpt") == {"book": False}
