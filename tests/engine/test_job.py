"""A stage's manifest: figures that are no numbers are not saved."""

from __future__ import annotations

import math
from typing import Any

import pytest

from common.config.resolve import resolve
from common.engine.job import Job, manifest_of
from common.errors import ContractError
from common.stage import StageReport
from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    ("metrics", "name"),
    [
        ({"final_loss": math.nan}, "metric.final_loss"),
        ({"looks": [{"loss": 1.0}, {"loss": math.inf}]}, "metric.looks.1"),
    ],
)
def test_a_metric_that_is_no_number_is_named(metrics: dict[str, Any], name: str) -> None:
    resolved = resolve({"domain": "medical"}, REPOSITORY)
    job = Job(resolved.nodes[0], {}, {"settings": {}}, "0" * 16, forced=False)
    with pytest.raises(ContractError, match=rf"^Stage base: {name}.* is (nan|inf); expected finite numbers"):
        manifest_of(job, StageReport(metrics=metrics), 1.0, resolved)
