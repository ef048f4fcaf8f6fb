"""The benchmark of architectures: models are small, and each outcome is named."""

from __future__ import annotations

import multiprocessing

import pytest

from tests.bench.architectures import MOST_PARAMETERS, PLAIN, SECONDS, chain, main, small
from tests.end_to_end.test_families import make_tokenizer

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["llama", "gpt_neo", "mamba", "lfm2", "deepseek_v3", "gpt_oss", "bloom"])
def test_two_layers_are_left_of_an_architecture(name: str) -> None:
    tokenizer = make_tokenizer(PLAIN)
    model = small(name, tokenizer)
    assert model.num_parameters() < MOST_PARAMETERS / 20
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)


def test_one_that_is_refused_says_why() -> None:
    ours, theirs = multiprocessing.Pipe(duplex=False)
    chain("bart", "full", theirs)
    found, why = ours.recv() if ours.poll(SECONDS) else ("", "")
    assert found == "refused"
    assert "is of a kind with an encoder" in why


@pytest.mark.long
def test_an_architecture_that_is_none_is_not_built(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(names="nothing") == 0
    assert "nothing                      not built" in capsys.readouterr().out
