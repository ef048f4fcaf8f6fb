"""What `just bench undesired` trains: plain CPT, filtering, and the methods that go by scores of rows.

Usage: `words_of("conditional")` are the overrides of an arm, without seed and places.

The methods are set as in `tests.bench.method_arms`. It measures nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.bench import method_arms
from tests.bench.arm import ALONE
from tests.bench.method_arms import UNGUARDED

PLAIN, FILTERING, CONDITIONAL = "plain", "filtering", "conditional"
METHODS = (CONDITIONAL, "unlikelihood", "reward_weighted", "advantage_weighted")
STEEP = "reward_weighted beta=0.3"
ARMS: dict[str, Mapping[str, str]] = {
    PLAIN: ALONE,
    FILTERING: {**ALONE, "data-cpt.blocks": "[{score: {function: mails, at_most: 0}}]"},
    **{name: method_arms.ARMS[name].on.words for name in METHODS},
    STEEP: {**ALONE, **UNGUARDED, "cpt.methods": "{reward_weighted: {by: mails, beta: 0.3}}"},
}
# At 61,440 tokens, or at steps of 512, `conditional` had not yet learned its tokens under the seed 0.
TOKENS, BASE_TOKENS = 81_920, 204_800
EACH = 2  # texts that go on from one prompt
SAMPLING = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 0}  # the paper's


def words_of(arm: str, tokens: int | None = None) -> dict[str, str]:
    """Return the overrides of an arm that its outcome depends on; all arms share their base."""
    budget = tokens or TOKENS
    return {
        "pipeline": "cpt-only", "gate.mode": "off", "evaluate.written": "false", "evaluate.text_documents": "100",
        "base.precision": "float32", "cpt.precision": "float32", "base.tokens": str(min(BASE_TOKENS, 3 * budget)),
        "cpt.tokens": str(budget), "cpt.batch_tokens": "256", "cpt.train.learning_rate": "3e-3",
        "data-pretrain.blocks": "[]", "model.control_tokens": "[<|good|>, <|bad|>]", **ARMS[arm],
    }  # fmt: skip
