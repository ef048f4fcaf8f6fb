"""What the card says of rewards: how well reward models rank, and what learning from rewards changed.

Usage: `parts += reward_section(chain)`; empty where the chain has no such stage.

It prints what manifests say; the picture is `common.report.reward_plots`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.config.kinds import kind_of
from common.report.chain import Chain, Checkpoint
from common.report.markdown import interval, percent, table

REWARDS_PICTURE = "rewards.png"


def reward_models(chain: Chain) -> dict[str, Mapping[str, Any]]:
    """Return stage name -> metrics of the chain's reward models."""
    return {name: m["metrics"] for name, m in chain.manifests.items() if kind_of(m["kind"]).makes == "reward model"}


def rewarded(chain: Chain) -> list[Checkpoint]:
    """Return the checkpoints that learned from rewards, whose looks at held-out prompts are on record."""
    return [c for c in chain.checkpoints if c.manifest.get("metrics", {}).get("looks")]


def has_rewards(chain: Chain) -> bool:
    return bool(reward_models(chain) or rewarded(chain))


def reward_section(chain: Chain) -> list[str]:
    """Return the card's paragraphs on rewards."""
    if not has_rewards(chain):
        return []
    return [
        "### Rewards",
        *([_models_table(chain), _MODELS_NOTE] if reward_models(chain) else []),
        *map(_sentence, rewarded(chain)),
        f"![Calibration of reward models, and rewards over the steps]({REWARDS_PICTURE})",
    ]


_MODELS_NOTE = (
    "A reward model ranks a pair right when it gives the preferred answer the higher reward. Pairs kept from training "
    "are those of a share of its prompts; those of the held-out role come from the data, and in embedded worlds they "
    "ask about things that no training pair asks about. The calibration error is the mean distance between how sure "
    "the model is of a ranking and how often it is right (0 is best). Where it prefers the longer answer more often "
    "than people do, it has learned length."
)


def _models_table(chain: Chain) -> str:
    heads = ["Reward model", "Pairs", "Ranked right [95%]", "Mean margin", "Calibration error"]
    heads += ["Prefers the longer", "People do"]
    rows = []
    for name, metrics in reward_models(chain).items():
        for which, found in (("kept from training", metrics), ("held-out role", metrics.get("elsewhere"))):
            if found:
                accuracy = found["ranking_accuracy"]
                row = [f"`{name}`", f"{accuracy['n']:,} {which}", interval(accuracy), f"{found['margin']:.2f}"]
                row += [f"{found['calibration_error']:.3f}"]
                rows.append([*row, percent(found["longer_preferred"]), percent(found["longer_chosen"])])
    return table(heads, rows, right=range(2, 7))


def _sentence(checkpoint: Checkpoint) -> str:
    """Say what learning from rewards changed on prompts that never trained."""
    metrics = checkpoint.manifest["metrics"]
    looks, held = metrics["looks"], metrics["heldout_reward"]
    kept = next(look for look in looks if look["step"] == metrics["kept"])
    first = looks[0]
    parts = [
        f"`{checkpoint.name}` learned {metrics['steps']:,} steps from rewards. On {held['n']} held-out prompts the "
        f"mean reward of greedy answers went from {held['before']:.3f} to {held['after']:.3f} "
        f"({held['gain']:+.3f} [{held['low']:+.3f}, {held['high']:+.3f}], paired bootstrap)"
    ]
    if "right" in first:
        parts.append(f"right answers from {percent(first['right'])} to {percent(kept['right'])}")
    parts.append(f"their mean length from {first['tokens']:.1f} to {kept['tokens']:.1f} tokens")
    text = ", ".join(parts) + "."
    if unstopped := metrics.get("unstopped"):
        text += f" Of its last sampled answers {percent(unstopped)} did not stop by themselves."
    if skipped := metrics.get("no_signal"):
        text += f" In {skipped:,} steps all answers to each prompt earned alike, and nothing was learned from them."
    if reason := metrics.get("stopped"):
        text += f" It was stopped: {reason}; the weights of step {metrics['kept']} were kept."
    return text
