"""What the base stage changes in a checkpoint so that a chain can go on from it."""

from __future__ import annotations

from common.models.tokenizer import PLAIN
from common.models.turns import require_trainable_template
from common.stages.base import _choose_template
from tests.models.test_contracts import build


def test_of_several_chat_templates_the_default_one_is_kept() -> None:
    model, tokenizer = build()
    own = tokenizer.chat_template
    tokenizer.chat_template = {"tool_use": "{{ tools }}", "default": own}
    (note,) = _choose_template(model, tokenizer, "own")
    assert note.startswith("of its several chat templates only the default one is kept")
    assert tokenizer.chat_template == own
    require_trainable_template(tokenizer)
    tokenizer.chat_template = {"tool_use": "{{ tools }}"}
    assert len(_choose_template(model, tokenizer, "own")) == 2
    assert tokenizer.chat_template == PLAIN
