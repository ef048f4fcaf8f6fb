"""One check refuses what is no number, in tensors and in figures, by its name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from common.errors import ContractError, DataError
from common.models import checkpoint
from common.models.finite import is_number, require_finite, weights_in
from tests.models.test_contracts import build


@pytest.mark.parametrize("value", [0, -1.5, 1e38, [1, 2.0], (), [[1.0], [2]]])
def test_numbers_pass(value: Any) -> None:
    require_finite([("it", value)], "The exam", "Run it again.")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, "1", None, [1.0, math.nan], [[True]]])
def test_what_is_no_number_is_named(value: Any) -> None:
    with pytest.raises(ContractError, match=r"^The exam: it is .*; expected finite numbers\. Run it again\.$"):
        require_finite([("sound", 1.0), ("it", value)], "The exam", "Run it again.")
    with pytest.raises(DataError):
        require_finite([("it", value)], "The exam", "Run it again.", DataError)


def test_true_is_no_number() -> None:
    assert is_number(1)
    assert not is_number(True)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float8_e4m3fn"])
def test_a_tensor_with_one_place_that_is_no_number_is_named_with_how_many(dtype: str) -> None:
    import torch

    sound = torch.ones(3, 4).to(getattr(torch, dtype))
    require_finite([("w", sound)], "The model", "Give another.")
    wide = torch.ones(3, 4)
    wide[1, 2] = math.nan
    with pytest.raises(ContractError, match=r"w holds NaN in 1 of 12 places"):
        require_finite([("w", wide.to(sound.dtype))], "The model", "Give another.")


def test_tensors_without_numbers_of_their_own_are_passed_over() -> None:
    import torch

    odd = [torch.empty(0), torch.ones(2, dtype=torch.int64), torch.empty(3, device="meta")]
    require_finite([("w", tensor) for tensor in odd], "The model", "Give another.")


def test_the_tensors_of_a_file_are_checked_one_at_a_time(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2), "b": torch.tensor([1.0, math.inf])}, tmp_path / "w.safetensors")
    with pytest.raises(ContractError, match=r"^Cannot merge sft: b holds infinity in 1 of 2 places"):
        require_finite(weights_in(tmp_path / "w.safetensors"), "Cannot merge sft", "Run it again.")


@pytest.mark.parametrize(("dtype", "value"), [("float32", math.nan), ("bfloat16", math.inf), ("float16", 1e5)])
def test_a_model_is_not_saved_with_weights_that_are_no_numbers(tmp_path: Path, dtype: str, value: float) -> None:
    """One of them is finite, and is none any more in the narrow type that it is saved in."""
    import torch

    model, tokenizer = build()
    with torch.no_grad():
        model.model.norm.weight[3] = value
    with pytest.raises(ContractError, match=rf"^The model in {dtype}: model\.norm\.weight holds .* Nothing is saved"):
        checkpoint.save(model, tokenizer, tmp_path / "out", dtype)
    assert not list((tmp_path / "out").iterdir())
