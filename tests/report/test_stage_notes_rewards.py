"""What the card says and draws of rewards, from hand-made manifests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.report.chain import Chain, load_chain
from common.report.plots import _draw_steps, draw_rewards
from common.report.stage_notes import has_rewards, reward_notes
from common.rewards.ranking import ranking_facts
from common.store.artifacts import Artifact

BuildChain = Callable[..., dict[str, Artifact]]
LOOKS = [
    {"step": 0, "reward": 0.4, "tokens": 5.0, "right": 0.3},
    {"step": 20, "reward": 0.7, "tokens": 6.0, "right": 0.6},
    {"step": 40, "reward": 0.9, "tokens": 13.0, "right": 0.5},
]
LEARNED = {
    "steps": 40, "looks": LOOKS, "kept": 20, "no_signal": 3, "unstopped": 0.25, "stopped": "answers grew from 5 to 13",
    "heldout_reward": {"before": 0.4, "after": 0.7, "n": 64, "gain": 0.3, "low": 0.1, "high": 0.5},
}  # fmt: skip


def with_rewards(chain: Chain) -> Chain:
    """A chain whose dpo learned from rewards, after a reward model was trained."""
    facts = ranking_facts([2.0, 1.0, 0.5, 1.0], [0.0, 1.5, 0.0, -1.0], [1, 2, -1, 0])
    steps = {step: 0.4 + step / 80 for step in range(1, 41)}

    def changed(checkpoint: Any) -> Any:
        if checkpoint.name != "dpo":
            return checkpoint
        return replace(checkpoint, manifest={**checkpoint.manifest, "metrics": LEARNED}, rewards=steps)

    manifests = {**chain.manifests, "reward": {"kind": "reward", "metrics": {**facts, "elsewhere": facts}}}
    return Chain(tuple(map(changed, chain.checkpoints)), chain.published, manifests)


def test_a_chain_without_rewards_says_nothing_of_them(build_chain: BuildChain) -> None:
    chain = load_chain(build_chain())
    assert not has_rewards(chain)
    assert reward_notes(chain) == []


def test_the_section_tells_how_it_ranks_and_what_was_learned(build_chain: BuildChain) -> None:
    chain = with_rewards(load_chain(build_chain()))
    text = "\n".join(reward_notes(chain))
    assert "![Calibration of reward models and rewards over the steps](rewards.png)" in text
    learned = reward_notes(replace(chain, manifests={"dpo": chain.manifests["dpo"]}))
    assert learned[-1] == "![Rewards over the steps](rewards.png)"
    assert "| `reward`     | 4 kept from training | 75.0%" in text
    assert "4 held-out role" in text
    assert "went from 0.400 to 0.700 (+0.300 [+0.100, +0.500], paired bootstrap)" in text
    assert "The share of right answers went from 30.0% to 60.0%. The mean length went from 5.0 to 6.0 tokens." in text
    assert "25.0% did not stop by themselves" in text
    assert "In 3 steps, all answers to a prompt had the same reward" in text
    assert "Training was stopped early: answers grew from 5 to 13. The weights of step 20 were kept." in text


def test_the_figure_is_drawn(build_chain: BuildChain, tmp_path: Path) -> None:
    from PIL import Image

    draw_rewards(with_rewards(load_chain(build_chain())), tmp_path / "rewards.png", work=tmp_path)
    with Image.open(tmp_path / "rewards.png") as picture:
        assert picture.width == 1600
        assert len(picture.convert("RGB").getcolors(1_000_000) or []) > 50


def test_steps_are_whole_numbers(build_chain: BuildChain) -> None:
    from matplotlib.figure import Figure

    learned = next(c for c in with_rewards(load_chain(build_chain())).checkpoints if c.name == "dpo")
    metrics = {**learned.metrics, "looks": [{**look, "step": step} for step, look in enumerate(LOOKS)]}
    axes = Figure().add_subplot()
    _draw_steps(axes, replace(learned, manifest={"metrics": metrics}, rewards={1: 0.5, 2: 0.5}))
    assert all(tick == round(tick) for tick in axes.get_xticks())
