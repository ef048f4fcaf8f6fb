import pytest

from common.errors import ContractError, DataError
from common.models import limits
from common.models.control_tokens import reader_of
from common.models.rendering import Refusal, encode_chat
from common.models.turns import DIALOGUE, encode_turns, require_trainable_template
from common.system import limited
from tests.models.tokenizers import KINDS

TURNS = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>{% endfor %}"
NESTED = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
DOUBLED = "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}"
WITHOUT_END = {
    "loops": NESTED, "doubling": DOUBLED, "format": "{{ '%10000000000d' % 1 }}",
    "filter": "{{ '%10000000000d' | format(1) }}", "repeated": "{{ 'x' * 10 ** 11 }}", "power": "{{ 9 ** (9 ** 9) }}",
    "macro": "{% macro f(n) %}" + NESTED + "{% endmacro %}{{ f(1) }}",
}  # fmt: skip


@pytest.mark.parametrize("kind", WITHOUT_END)
def test_a_template_that_does_not_end_stops_before_anything_is_spent(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SECONDS", 0.3)
    monkeypatch.setattr(limits, "MEMORY", 2**29)
    tokenizer = KINDS["qwen"]()
    tokenizer.name_or_path = "folder/checkpoint"
    tokenizer.chat_template = WITHOUT_END[kind]
    with pytest.raises(
        DataError,
        match=r"The chat template of folder/checkpoint was stopped: it used more than .+ of 2 turns",
    ):
        require_trainable_template(tokenizer)


@pytest.mark.parametrize(
    "template", ["{% for i in range(10**9) %}{% endfor %}", "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}"]
)
def test_a_template_that_python_stops_is_refused(template: str) -> None:
    tokenizer = KINDS["qwen"]()
    tokenizer.chat_template = template
    with pytest.raises(ContractError, match="refuses a question with its answer"):
        require_trainable_template(tokenizer)
    with pytest.raises(Refusal, match="refused by the chat template"):
        encode_chat(tokenizer, DIALOGUE)


def test_rows_that_make_a_template_explode_stop_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SECONDS", 0.3)
    tokenizer = KINDS["qwen"]()
    tokenizer.chat_template = TURNS + "{% if messages | length > 2 %}" + NESTED + "{% endif %}"
    require_trainable_template(tokenizer)
    with pytest.raises(DataError, match="for a conversation of 4 turns"):
        list(encode_turns(tokenizer, [{"messages": DIALOGUE}, {"messages": DIALOGUE * 2}]))


def test_a_tokenizer_whose_pattern_explodes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenizers import Regex, pre_tokenizers

    tokenizer = KINDS["qwen"]()
    tokenizer.name_or_path = "folder/checkpoint"
    core = tokenizer.backend_tokenizer
    core.pre_tokenizer = pre_tokenizers.Split(Regex("(([a-z]+)+)+Q"), "isolated")
    with pytest.raises(DataError, match=r"folder/checkpoint fails \(Onig.+ at 1 text of 60 characters\. Correct the"):
        reader_of(tokenizer).encode(["a" * 60])
    with pytest.raises(DataError, match=r"fails \(Onig.+ at 9 texts of"):
        limits.try_tokenizer(tokenizer)
    limits.try_tokenizer(KINDS["llama"]())
    monkeypatch.setattr(limits, "PATIENCE", 0.0)
    monkeypatch.setattr(limited, "LOOK_SECONDS", 0.001)  # a fast machine gives up before the first look else
    with pytest.raises(DataError, match="takes more than 0 seconds at 1 text"):
        reader_of(tokenizer).encode(["a" * 60])
