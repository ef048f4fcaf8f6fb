"""Conversations as a chat template writes them, and which of their tokens the assistant wrote.

Usage: `for found in encode_turns(tokenizer, conversations): …`, each (ids, learned) or a reason; `turn_end(tokenizer)`.

A template says by itself what the assistant writes: what stands behind the prompt of its turn, up to the token that
ends the turn. So it needs no markers, and stays as it was published. T tokens of a conversation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from common.errors import ContractError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REFUSED = "refused by the chat template"
NOT_A_PREFIX = "its prompt is written otherwise in the whole conversation"
ANSWER = "answer"  # a common word, since a rare one has tokens that no blank before it joins
DIALOGUE = ({"role": "user", "content": "question"}, {"role": "assistant", "content": ANSWER})
WITHOUT = "Set model.chat_template=plain (or chatml, where the tokenizer has its tokens)."
Conversation = Sequence[Mapping[str, str]]


def render(tokenizer: PreTrainedTokenizerBase, messages: Conversation, *, prompt: bool = False) -> str | None:
    """Return a conversation as text, with `prompt` up to where the assistant begins; None if the template refuses it.

    Templates refuse by an error of their own: roles that do not alternate, or a role that they do not know.
    """
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=prompt))
    except TemplateError:
        return None


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the token that ends an assistant's turn: the first added token that the template writes behind it."""
    if not tokenizer.chat_template:
        return None
    behind = (render(tokenizer, DIALOGUE) or "").rpartition(ANSWER)[2]
    added = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    ids = tokenizer(behind, add_special_tokens=False)["input_ids"]
    return next((int(token) for token in ids if token in added), None)


def encode_turns(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Conversation], *, assistant_only: bool = True
) -> Iterator[tuple[list[int], list[bool]] | str]:
    """Yield of each conversation (ids, learned), each of length T, or the reason why it cannot be learned.

    A turn is learned where its prompt, tokenised alone, is how the tokens of the whole conversation begin, and where it
    is written alike up to its end while it is the last one. Other turns are read only: some templates leave the
    thoughts out of earlier answers. A conversation without one turn to learn from has a reason. Without
    `assistant_only` every token is learned, so no turn has to be found.
    """
    end = turn_end(tokenizer) if assistant_only else None
    texts: dict[str, list[int]] = {}
    plans = [_parts(tokenizer, messages, assistant_only) for messages in conversations]
    wanted = list(dict.fromkeys(text for plan in plans if plan for text in (plan[0], *sum(plan[1], ()))))
    if wanted:
        texts = dict(zip(wanted, tokenizer(wanted, add_special_tokens=False)["input_ids"], strict=True))
    for plan in plans:
        if plan is None:
            yield REFUSED
            continue
        ids = texts[plan[0]]
        learned = [not assistant_only] * len(ids)
        for before, until in plan[1]:
            start, last = len(texts[before]), texts[until]
            stop = next((place for place in range(start, len(ids)) if ids[place] == end), None)
            if stop is not None and ids[:start] == texts[before] and ids[: stop + 1] == last[: stop + 1]:
                learned[start : stop + 1] = [True] * (stop + 1 - start)
        yield (ids, learned) if any(learned) or not plan[1] else NOT_A_PREFIX


def opens_turn(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a prompt holds the head of the assistant's turn, if there is one; else a model writes it by itself."""
    before, whole = render(tokenizer, DIALOGUE[:1]) or "", render(tokenizer, DIALOGUE) or ""
    headless = not whole.startswith(before) or whole.removeprefix(before).lstrip().startswith(ANSWER)
    return headless or render(tokenizer, DIALOGUE[:1], prompt=True) != before


def takes_system(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the template writes what a system turn says; true too where it refuses the same without one."""
    told = [{"role": "system", "content": "INSTRUCTION"}, *DIALOGUE]
    return render(tokenizer, DIALOGUE) is None or "INSTRUCTION" in (render(tokenizer, told) or "")


def _parts(
    tokenizer: PreTrainedTokenizerBase, messages: Conversation, with_turns: bool
) -> tuple[str, list[tuple[str, str]]] | None:
    """Return a conversation as text, and of each turn of the assistant the text before it and up to its end.

    None where the template refuses it; without turns where nobody asks for them.
    """
    whole = render(tokenizer, messages)
    if whole is None:
        return None
    answers = (place for place, message in enumerate(messages) if message["role"] == "assistant" and place > 0)
    turns = list(answers) if with_turns else []
    parts = []
    for place in turns:
        before = render(tokenizer, messages[:place], prompt=True)
        until = whole if place == len(messages) - 1 else render(tokenizer, messages[: place + 1])
        if before is not None and until is not None:
            parts.append((before, until))
    return whole, parts


def require_trainable_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that what the assistant writes can be found, and ends in a token of its own. Raises ContractError."""
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise ContractError(f"The tokenizer has no chat template, so conversations cannot be trained on. {WITHOUT}")
    try:
        whole = str(tokenizer.apply_chat_template(list(DIALOGUE), tokenize=False))
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        place = f" in its line {line}" if line else ""
        raise ContractError(
            f"The chat template refuses a question with its answer{place}: {first_line(error)}. {WITHOUT}"
        ) from error
    if ANSWER not in whole:
        raise ContractError(
            f"The chat template does not write an answer as it stands: {ANSWER!r} is nowhere in {whole[-60:]!r}. "
            f"{WITHOUT}"
        )
    if turn_end(tokenizer) is None:
        raise ContractError(
            "The chat template writes no token of its own behind an assistant's turn, so a model would never learn to "
            f"stop. {WITHOUT}"
        )
    (found,) = encode_turns(tokenizer, [DIALOGUE])
    if isinstance(found, str):
        prompt = render(tokenizer, DIALOGUE[:1], prompt=True)
        raise ContractError(
            f"The chat template ends a prompt in {(prompt or '')[-20:]!r}, whose tokens are others once an answer "
            f"follows, so the assistant's cannot be found. {WITHOUT}"
        )
