"""What the card says of answers that a checkpoint wrote for other stages to learn from.

Usage: `parts += sampling_sentences(chain)`; nothing where a chain has no such stage.

It prints what manifests say; drawing the answers is `common.training.sampling`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.config.kinds import kind_of
from common.report.chain import Chain
from common.report.markdown import MISSING, interval, number, percent, table

Facts = Mapping[str, Any]


def sampling_sentences(chain: Chain) -> list[str]:
    """Return Markdown for every stage that sampled answers, in pipeline order."""
    parts = []
    for name, manifest in chain.manifests.items():
        if kind_of(manifest["kind"]).makes == "sample":
            parts.append(_sample(name, manifest))
        elif "rounds" in manifest.get("metrics", {}):
            parts.append(_expert(name, manifest))
    return ["### Answers of its own", *parts] if parts else []


def _sample(name: str, manifest: Facts) -> str:
    facts = manifest["metrics"]
    times = facts["answers"] // facts["prompts"]
    return (
        f"For `{name}`, `{manifest['parent']}` answered {number(facts['prompts'])} prompts {times} times each: "
        f"{percent(facts['answers_right'])} of the answers are right, {percent(facts['unstopped'])} did not stop, the "
        f"mean reward is {facts['mean_reward']:.2f} and the mean length {facts['mean_tokens']:.0f} tokens. They give "
        f"{number(facts['pairs'])} pairs of a better and a worse answer (prompts without one: "
        f"{_reasons(facts['no_pair'])}) and {number(facts['kept'])} right answers to learn from (left out: "
        f"{_reasons(facts['not_kept'])}). {_rates(facts['pass_rates'])}"
    )


def _expert(name: str, manifest: Facts) -> str:
    facts = manifest["metrics"]
    heads = ["Round", "Held-out prompts right [95%]", "Prompts answered right", "Answers right", "Not stopped"]
    heads += ["Answers kept so far", "Duplicates dropped"]
    rows = []
    for told in facts["rounds"]:
        held = interval({"score": told["right"], "low": told["low"], "high": told["high"]})
        label = f"**{told['round']}**" if told["round"] == facts["chosen"] else str(told["round"])
        if told["round"] == 0:
            rows.append([label, held, *[MISSING] * 5])
            continue
        answered = f"{number(told['answered'])} of {number(told['prompts'])}"
        shares = [percent(told["answers_right"]), percent(told["unstopped"])]
        rows.append(
            [label, held, answered, *shares, number(told["kept"]), number(told["not_kept"].get("duplicate", 0))]
        )
    last = facts["rounds"][-1]
    held_out = facts["rounds"][0]["n"]
    return (
        f"`{name}` learned from its own right answers. Before the first round (round 0) and after each, it answered "
        f"{held_out} prompts that never train, greedily; the round in bold is handed on.\n\n"
        + table(heads, rows, right=range(7))
        + f"\n\nIn the last round: {_rates(last['pass_rates'])}"
    )


def _reasons(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items())) or "none"


def _rates(rates: Mapping[str, int]) -> str:
    """The histogram of pass rates as a sentence."""
    told = ", ".join(f"{name}: {rates[name]:,}" for name in rates)
    return f"Prompts by the share of their answers that are right: {told}."
