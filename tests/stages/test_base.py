"""What the base stage changes in a checkpoint so that a chain can go on from it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from common.config.resolve import resolve
from common.console import Console
from common.data.corpus import Corpus
from common.errors import ConfigError
from common.models.tokenizer import PLAIN
from common.models.turns import require_trainable_template
from common.stage import StageContext
from common.stages.base import _choose_template, initialise
from tests.conftest import REPOSITORY
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


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("rms_norm_eps", "a", r"^model\.architecture: LlamaConfig refuses it: .*'rms_norm_eps' expected float"),
        (
            "hidden_size",
            "130",
            r"^model\.architecture: LlamaConfig refuses it: .*not a multiple of the number of attent",
        ),
        ("hidden_act", "zzz", r"^model\.architecture: LlamaConfig refuses it: 'zzz'$"),
        ("hiden_size", "130", r"^model\.architecture\.hiden_size: LlamaConfig has no such key\. Did you mean 'hidden_"),
    ],
)
def test_an_architecture_that_cannot_be_built_is_refused(key: str, value: str, message: str) -> None:
    resolved = resolve({"domain": "medical", f"model.architecture.{key}": value}, REPOSITORY)
    place, settings = Path(), resolved.config.stages["base"]
    context = StageContext(
        "base", "base", settings, resolved.config, {}, None, cast(Corpus, None), place, place, place, Console("quiet")
    )
    _, tokenizer = build()
    with pytest.raises(ConfigError, match=message):
        initialise(context, tokenizer)
