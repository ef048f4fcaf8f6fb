"""Unlikelihood by the scores of documents: the definition in float64, its edges, and the scores in real batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.config.methods import LossBatch
from common.config.schema import Config
from common.config.stages import CptSettings
from common.errors import DataError
from common.training.fit import trainer_for
from common.training.methods import pieces
from common.training.methods.losses.unlikelihood import LEAST, UnlikelihoodSettings, term
from common.training.rows.packing import RowCollator
from tests.training.methods.losses.test_self_distillation import softmax
from tests.training.methods.scored import built, context


def batch(scores: Any = None) -> LossBatch:
    torch.manual_seed(3)
    logits = torch.randn(2, 5, 7) * 3
    following = torch.tensor([[1, 2, -100, 6, 0], [3, -100, 5, 5, 4]])
    given = torch.tensor([[0.1, 0.1, 0.1, 0.9, 0.9], [0.5, 0.5, 0.5, float("nan"), 0.50001]])
    return LossBatch(logits.requires_grad_(), following, None, scores={"bad": given if scores is None else scores})


def expected(given: LossBatch, threshold: float, alpha: float) -> tuple[float, np.ndarray]:
    """Return the sum and its gradient, position by position in float64."""
    probabilities = softmax(given.logits_BTV.detach().double().numpy())
    scores, following = given.scores["bad"].numpy(), given.next_BT.numpy()
    total, gradient = 0.0, np.zeros_like(probabilities)
    for place in np.ndindex(following.shape):
        if following[place] == -100:
            continue
        one = np.eye(probabilities.shape[-1])[following[place]]
        p = probabilities[place][following[place]]
        if scores[place] > threshold:  # NaN is not
            total += -alpha * np.log(1 - p)
            gradient[place] = alpha * p / (1 - p) * (one - probabilities[place])
        else:
            total += -np.log(p)
            gradient[place] = probabilities[place] - one
    return total, gradient


@pytest.mark.parametrize("alpha", [1.0, 0.25, 0.0])
def test_it_is_the_definition(alpha: float) -> None:
    given = batch()
    total, gradient = expected(given, 0.5, alpha)
    found, measured = term(given, UnlikelihoodSettings(by="bad", threshold=0.5, alpha=alpha))
    assert float(found.detach()) == pytest.approx(total, rel=1e-5)
    found.backward()
    np.testing.assert_allclose(given.logits_BTV.grad.numpy(), gradient, atol=1e-5)
    assert int(measured["bad"]) == 3  # at the threshold it is good


def test_a_threshold_that_float32_cannot_hold_is_still_good() -> None:
    scores = torch.full((2, 5), 0.1)  # of a document that scored 0.1 in float64
    _, measured = term(batch(scores), UnlikelihoodSettings(by="bad", threshold=0.1))
    assert int(measured["bad"]) == 0


def test_a_bad_token_that_is_certain_costs_a_finite_loss() -> None:
    given = batch(torch.ones(2, 5))
    with torch.no_grad():
        given.logits_BTV.zero_()
        given.logits_BTV[given.next_BT != -100, given.next_BT[given.next_BT != -100]] = 1000.0
    found, _ = term(given, UnlikelihoodSettings(by="bad", threshold=0.5))
    assert float(found.detach()) == pytest.approx(-8 * np.log(LEAST), rel=1e-5)
    found.backward()
    assert torch.isfinite(given.logits_BTV.grad).all()


def test_it_does_not_depend_on_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = UnlikelihoodSettings(by="bad", threshold=0.5)
    whole, parts = batch(), batch()
    term(whole, settings)[0].backward()
    monkeypatch.setattr(pieces.sum_of_scored, "__defaults__", (14,))
    term(parts, settings)[0].backward()
    assert torch.allclose(whole.logits_BTV.grad, parts.logits_BTV.grad)


def test_each_position_has_the_score_of_its_document(tokenizer: Any, config: Config, tmp_path: Path) -> None:
    given = context(tmp_path / "a", config, {"unlikelihood": {"by": "bad"}}, replay=0.25, epochs=None, tokens=4096)
    rows = built(given, tokenizer)
    collated = RowCollator(tokenizer.pad_token_id, 64, ("bad",))([rows.dataset[place] for place in range(32)])
    words = {tokenizer(word).input_ids[0]: score for word, score in (("bad", 1.0), ("nice", 0.1), ("plain", np.nan))}
    seen = set()
    for ids, positions, scores, labels in zip(
        *(collated[name].tolist() for name in ("input_ids", "position_ids", "score/bad", "labels")), strict=True
    ):
        score = np.nan
        for place, position in enumerate(positions):
            score = words.get(ids[place], np.nan) if position == 0 else score
            np.testing.assert_allclose(scores[place], score, rtol=1e-6)
            seen.add(str(score) if labels[place] != -100 else "")
    assert seen == {"", "1.0", "0.1", "nan"}


def test_a_document_that_is_split_has_its_score_in_every_part(tokenizer: Any, config: Config, tmp_path: Path) -> None:
    given = context(tmp_path / "a", config, {"unlikelihood": {"by": "bad"}}, sequence_length=16, batch_tokens=64)
    rows = built(given, tokenizer)
    split = [row for row in rows.dataset if 16 in row["seq_lengths"]]
    assert len(split) > 20
    assert {round(score, 6) for row in rows.dataset for score in row["score/bad"]} == {0.1, 1.0}
    assert all(len(row["score/bad"]) == len(row["seq_lengths"]) for row in rows.dataset)


def test_it_trains_and_is_measured_on_rows_that_never_train(
    tokenizer: Any, model: Any, config: Config, tmp_path: Path
) -> None:
    methods = {"unlikelihood": {"by": "bad", "threshold": 0.5}}
    given = context(tmp_path / "a", config, methods, validation={"share": 0.1}, train={"learning_rate": 0.01})
    rows = built(given, tokenizer)
    trainer = trainer_for(given, model, tokenizer, rows, tmp_path)
    trainer.train()
    logged = trainer.state.log_history
    assert trainer.evaluate(eval_dataset=rows.validation)["eval_loss"] > 0  # the scores are not for the model
    assert 0.1 < trainer.applied.measured({}, logged)["methods"]["unlikelihood"]["measured"]["bad"] < 0.6

    def likelihood(text: str) -> float:
        ids = torch.tensor([tokenizer(text).input_ids], device=trainer.model.device)
        return -float(trainer.model(ids, labels=ids).loss.detach())

    assert likelihood("nice nice nice") > likelihood("bad bad bad") + 1


def test_a_row_without_the_score_is_named_and_the_two_losses_exclude_each_other(
    tokenizer: Any, config: Config, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"^cpt\.methods\.unlikelihood\.by=bat: a row of the source 'book' has no such"):
        built(context(tmp_path / "a", config, {"unlikelihood": {"by": "bat"}}), tokenizer)
    assert CptSettings(tokens=2048, methods=["unlikelihood"]).methods == {"unlikelihood": {}}
