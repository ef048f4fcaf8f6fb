"""The assistant's tokens are found from the template itself, or the row is left out with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from common.errors import ContractError
from common.models import turns
from common.models.control_tokens import ControlTokens
from common.models.rendering import REFUSED
from common.models.tokenizer import CHATML, FOLD_SYSTEM, PLAIN, train_tokenizer
from common.models.turns import (
    NOT_A_PREFIX,
    READ_ONLY,
    TOO_LONG,
    Encoded,
    encode_turns,
    opens_turn,
    render,
    require_trainable_template,
    takes_system,
    turn_end,
)

# In the shape of Gemma's: no system turn, roles alternate, the assistant is called model.
ALTERNATING = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "<start>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<start>model\n{% endif %}"
)
# In the shape of Qwen3's: the last answer has thoughts, which earlier ones lose.
THINKING = (
    "{% for m in messages %}<start>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m['content'] }}<end>\n"
    "{% endfor %}{% if add_generation_prompt %}<start>assistant\n{% endif %}"
)
# In the shape of Phi-3's: behind the last turn comes the end of the text.
ENDED = (
    "{% for m in messages %}<start>{{ m['role'] }}\n{{ m['content'] }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<start>assistant\n{% else %}{{ eos_token }}{% endif %}"
)
# In the shape of Mistral's: words around the user's turn, and the end of the text behind an answer.
BRACKETS = (
    "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] | trim }}{{ eos_token }}{% endif %}{% endfor %}"
)
OWN_SYSTEM = (  # in the shape of SmolLM2-Instruct's
    "{% for m in messages %}"
    "{% if loop.first and m['role'] != 'system' %}<start>system\nYou are small.<end>\n{% endif %}"
    "<start>{{ m['role'] }}\n{{ m['content'] }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<start>assistant\n{% endif %}"
)


@pytest.fixture
def tokenizer() -> Any:
    found = train_tokenizer(["you are small, a question and an answer: user, assistant, system, model"] * 3, 400, 64)
    special = ["<start>", "<end>", "<bos>", "<|im_start|>", "<|im_end|>"]
    found.add_special_tokens({"additional_special_tokens": special, "bos_token": "<bos>"})
    found.add_tokens(["<think>", "</think>"])
    return found


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


TURNS = [user("a question"), said("an answer"), user("another"), said("a second answer")]


def learned(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    (found,) = encode_turns(tokenizer, [{"messages": messages}])
    assert not isinstance(found, str), found
    return str(tokenizer.decode([token for token, mark in zip(found.ids, found.learned, strict=True) if mark]))


@pytest.mark.parametrize(
    ("template", "end", "expected"),
    [
        (ALTERNATING, "<end>", "an answer<end> a second answer<end>"),
        (THINKING, "<end>", "<think>\n\n</think>\n\n a second answer<end>"),
        (ENDED, "<end>", "an answer<end> a second answer<end>"),
        (BRACKETS, "<|end|>", "an answer<|end|> a second answer<|end|>"),
        (OWN_SYSTEM, "<end>", "an answer<end> a second answer<end>"),
        (PLAIN, "<|end|>", "an answer<|end|> a second answer<|end|>"),
        (CHATML, "<|im_end|>", "an answer<|im_end|> a second answer<|im_end|>"),
    ],
)
def test_an_answer_is_what_follows_its_prompt_up_to_the_end_of_the_turn(
    tokenizer: Any, template: str, end: str, expected: str
) -> None:
    tokenizer.chat_template = template
    require_trainable_template(tokenizer)
    assert turn_end(tokenizer) == tokenizer.convert_tokens_to_ids(end)
    assert "".join(learned(tokenizer, TURNS).split()) == "".join(expected.split())
    (found,) = encode_turns(tokenizer, [{"messages": TURNS}])
    assert found[0] == tokenizer.apply_chat_template(TURNS, return_dict=False)
    assert found[2] == (READ_ONLY,) * (template == THINKING)  # the first answer loses what the last one has


def test_marked_templates_teach_the_tokens_that_their_markers_name(tokenizer: Any) -> None:
    for template in (tokenizer.chat_template, CHATML):
        tokenizer.chat_template = template
        expected = tokenizer.apply_chat_template(TURNS, return_dict=True, return_assistant_tokens_mask=True)
        (found,) = encode_turns(tokenizer, [{"messages": TURNS}])
        assert [int(mark) for mark in found[1]] == expected["assistant_masks"]


def test_a_row_that_the_template_refuses_or_whose_prompt_is_not_its_beginning_is_left_out(tokenizer: Any) -> None:
    tokenizer.chat_template = ALTERNATING
    rows = [{"messages": [user("a"), user("b"), said("c")]}]
    assert list(encode_turns(tokenizer, rows)) == [f"{REFUSED}: roles must alternate"]
    # A blank behind the prompt and a word of the answer are one token.
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{{ eos_token }}{% endfor %}"
        + ("{% if add_generation_prompt %}assistant: {% endif %}")
    )
    assert list(encode_turns(tokenizer, [{"messages": TURNS}])) == [NOT_A_PREFIX]
    (found,) = encode_turns(
        tokenizer, [{"messages": TURNS}], assistant_only=False
    )  # continued pre-training learns all of it
    assert not isinstance(found, str)
    assert all(found[1])
    with pytest.raises(ContractError, match=r"ends a prompt in '.*assistant: ', whose tokens are others"):
        require_trainable_template(tokenizer)


def test_templates_that_cannot_teach_to_stop_are_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(ContractError, match="no token of its own behind an assistant's turn"):
        require_trainable_template(tokenizer)
    tokenizer.chat_template = "{{ raise_exception('never, since it is late') }}"
    with pytest.raises(ContractError, match="refuses a question with its answer: never, since it is late"):
        require_trainable_template(tokenizer)
    tokenizer.chat_template = "first\n{% if %}"
    with pytest.raises(ContractError, match="refuses a question with its answer in its line 2: "):
        require_trainable_template(tokenizer)
    tokenizer.chat_template = CHATML.replace("| trim", "| trim | upper")
    with pytest.raises(ContractError, match=r"'answer' is nowhere in '.*ANSWER"):
        require_trainable_template(tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(ContractError, match="has no chat template"):
        require_trainable_template(tokenizer)


def test_a_template_that_does_not_begin_the_assistant_s_turn_is_told_from_one_that_does(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML
    assert opens_turn(tokenizer)
    tokenizer.chat_template = CHATML.partition("{%- if add_generation_prompt %}")[0]
    assert not opens_turn(tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}"  # no head at all
    assert opens_turn(tokenizer)


def test_a_system_turn_begins_the_user_s_where_the_template_has_none(tokenizer: Any) -> None:
    told = [{"role": "system", "content": "Be short."}, *TURNS]
    for template, takes in ((ALTERNATING, False), (BRACKETS, False), (OWN_SYSTEM, True), (CHATML, True), (PLAIN, True)):
        tokenizer.chat_template = template
        assert takes_system(tokenizer) == takes
    tokenizer.chat_template = ALTERNATING
    plain = render(tokenizer, TURNS)
    assert render(tokenizer, told) is None
    tokenizer.chat_template = FOLD_SYSTEM + ALTERNATING
    assert render(tokenizer, TURNS) == plain
    assert render(tokenizer, told) == str(plain).replace("a question", "Be short.\n\na question")
    assert takes_system(tokenizer)
    (found,) = encode_turns(tokenizer, [{"messages": told}])
    assert isinstance(found, Encoded)
    assert found.changed == ("system turn joined to the user's first",)


def test_a_long_conversation_takes_bounded_memory_and_one_that_is_too_long_is_encoded_once(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def encode(self: ControlTokens, texts: Sequence[str], **options: Any) -> list[list[int]]:
        sizes.append(sum(map(len, texts)))
        return whole(self, texts, **options)

    rows = [{"messages": TURNS * 10}, {"messages": TURNS}]
    expected = list(encode_turns(tokenizer, rows))
    whole = ControlTokens.encode
    monkeypatch.setattr(ControlTokens, "encode", encode)
    monkeypatch.setattr(turns, "BATCH_SIZE", 2000)
    assert list(encode_turns(tokenizer, rows)) == expected
    written = [str(render(tokenizer, row["messages"])) for row in rows]
    assert sizes[0] == sum(map(len, written))
    assert max(sizes[1:]) < 2000 + 2 * sizes[0]
    assert sum(sizes[1:]) > 4 * (2000 + 2 * sizes[0])
    sizes.clear()
    (long, short) = encode_turns(tokenizer, rows, sequence_length=100)
    assert (long, short) == (TOO_LONG, expected[1])
    assert sum(sizes) < sum(map(len, written)) + 4 * len(written[1])
