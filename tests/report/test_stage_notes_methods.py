"""The card has a table of the methods that stages used, with paper, settings and what was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from common.config.methods import described, method_of
from common.report.chain import load_chain
from common.report.method_notes import _paper, method_notes
from common.store.artifacts import Artifact


def test_each_method_is_named_with_paper_settings_and_numbers(build_chain: Callable[..., dict[str, Artifact]]) -> None:
    chain = load_chain(build_chain())
    assert method_notes(chain) == []
    method = method_of("self_distillation")
    facts = {**described(method, method.settings()), "measured": {"kl": 0.0125}}
    other = {**facts, "phrase": "a|b", "measured": {}, "ours": ""}  # of a method that is not installed here
    metrics = {**chain.manifests["cpt"]["metrics"], "methods": {"self_distillation": facts, "gone": other}}
    manifests = {**chain.manifests, "cpt": {**chain.manifests["cpt"], "metrics": metrics}}
    heading, body = method_notes(replace(chain, manifests=manifests))
    assert heading == "### Methods"
    first, second = (" ".join(line.split()) for line in body.splitlines()[2:])
    assert first.startswith("| `cpt` | `self_distillation`: a pull towards")
    assert "arXiv 1606.09282, equation 2; share: CAST, arXiv 2509.25996; ours: the weight" in first
    assert "weight 0.5, temperature 1, direction forward | kl 0.0125 |" in first
    assert r"`gone`: a\|b" in second
    assert _paper({"paper": "ours", "ours": "all of it"}) == "ours"
