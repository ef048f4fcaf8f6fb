"""Recipes and short runs are what they were: a change of identity or arithmetic is never an accident."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch

from common.config.folders import names_in
from common.config.precision import native
from tests.conftest import REPOSITORY, long
from tests.golden import curves, defaults, fingerprints

RENEW = "if that is meant, run `python -m tests.golden` in a commit of its own that says why"


def test_a_changed_default_comes_with_a_new_schema_of_recipes() -> None:
    names = defaults.changed()
    assert not names, f"the default of {names[0]} changed, so results do: add 1 to RECIPE_SCHEMA; then {RENEW}"
    assert defaults.checked_in() == defaults.table(), f"a setting came or went; {RENEW}"


@pytest.fixture
def _few_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


OTHERS = [name for name in names_in(REPOSITORY / "domains", "") if name != "medical"]


@pytest.mark.parametrize("domain", ["medical", *map(long, OTHERS)])
def test_every_shipped_recipe_has_the_fingerprints_that_are_checked_in(domain: str) -> None:
    require_same(domain, fingerprints.shipped())


@pytest.mark.slow
@pytest.mark.parametrize("domain", OTHERS)
def test_recipes_of_a_domain_have_them_on_one_profile_and_in_one_pipeline(domain: str) -> None:
    """What a domain itself decides is in each of them."""
    names = fingerprints.shipped()
    require_same(domain, [one for one in names if one[1] == "tiny" or one[2] == "full"])


def require_same(domain: str, names: Iterable[tuple[str, str, str]]) -> None:
    """Check some recipes of a domain, and that none is checked in for it that is not shipped."""
    chosen = {"/".join(one): one for one in names if one[0] == domain}
    shipped = {"/".join(one) for one in fingerprints.shipped()}
    expected = {name: line for name, line in fingerprints.checked_in().items()
                if name.startswith(f"{domain}/") and (name in chosen or name not in shipped)}  # fmt: skip
    found = {}
    for name, one in chosen.items():
        stages = fingerprints.fingerprints_of(*one)
        found[name] = " ".join(f"{stage}={digest[:8]}" for stage, digest in stages.items())
    changed = sorted(name for name in {**expected, **found} if expected.get(name) != found.get(name))
    assert not changed, f"{len(changed)} recipes changed, such as {changed[0]}; {RENEW}"


# Where bfloat16 is emulated, its run takes a minute, and shows what others show.
PRECISIONS = [
    pytest.param(name, marks=pytest.mark.long if name == "bfloat16" and native({}, {})[0] != name else [])
    for name in curves.PRECISIONS
]


@pytest.mark.usefixtures("_few_threads")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_short_run_has_the_losses_and_weights_that_are_checked_in(precision: str, tmp_path: Path) -> None:
    expected = curves.checked_in()[precision]
    run = curves.train(precision, tmp_path)
    for stage, losses in run.losses.items():
        assert losses == pytest.approx(expected["losses"][stage], abs=curves.TOLERANCE), f"{stage}; {RENEW}"
    known = expected["weights"].get(curves.machine())
    if known is not None:
        assert run.weights == known, f"the losses agree, the weights on this kind of machine do not; {RENEW}"
