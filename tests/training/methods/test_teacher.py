"""A teacher whose vocabulary is another one is refused before anything is trained."""

from __future__ import annotations

import pytest

from common.errors import ConfigError
from common.training.methods.teacher import check_vocabulary


def test_another_vocabulary_is_refused() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    one, other = (LlamaForCausalLM(LlamaConfig(vocab_size=size, **sizes)) for size in (64, 65))
    check_vocabulary(one, one, "cpt")
    with pytest.raises(ConfigError, match=r"^cpt: the teacher scores 64 tokens and the model 65, so their predictions"):
        check_vocabulary(one, other, "cpt")
