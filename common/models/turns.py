"""Which tokens of a conversation the assistant wrote, as the chat template says.

Usage: `for found in encode_turns(tokenizer, rows): …`, each Encoded or a reason; `turn_end(tokenizer)`.

A template says by itself what the assistant writes: what stands behind the prompt of its turn, up to the token that
ends the turn. So it needs no markers, and stays as it was published. How a conversation is written, and which parts of
it a template has to take, is `common.models.rendering`. T tokens of a conversation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from common.errors import ContractError
from common.models.control_tokens import reader_of
from common.models.limits import Refused, apply_template
from common.models.rendering import THOUGHT_KEYS, Messages, Refusal, Taken, take

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NOT_A_PREFIX = "its prompt is written otherwise in the whole conversation"
ALL_CONTEXT = "every answer is context only"
TOO_LONG = "longer than sequence_length"
READ_ONLY = "earlier answers read only, as the template writes them otherwise"
ANSWER = "answer"  # a common word, since a rare one has tokens that no blank before it joins
DIALOGUE = ({"role": "user", "content": "question"}, {"role": "assistant", "content": ANSWER})
BATCH_SIZE = 2**20  # characters of beginnings that are encoded at once: all those of a conversation grow as its square
WITHOUT = "Set model.chat_template=plain (or chatml, where the tokenizer has its tokens)."


class Encoded(NamedTuple):
    """A conversation of T tokens."""

    ids: list[int]
    learned: list[bool]
    changed: tuple[str, ...]  # what was done with it, as rows are counted by


class _Turn(NamedTuple):
    """The text before a turn of the assistant, and up to its end while it is the last one."""

    before: str
    until: str
    as_it_stands: bool  # whether it is learned where it is written otherwise too


class _Plan(NamedTuple):
    """A conversation as text, and the places of the turns that are learned or, where all else is, that are not."""

    taken: Taken
    whole: str
    sought: list[int]


def render(tokenizer: PreTrainedTokenizerBase, messages: Messages, *, prompt: bool = False) -> str | None:
    """Return a conversation of ours as text, with `prompt` up to where the assistant begins; None if it is refused."""
    try:
        return take(tokenizer, messages).render(prompt=prompt)
    except Refusal:
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
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Mapping[str, Any]], *, assistant_only: bool = True,
    sequence_length: int | None = None,
) -> Iterator[Encoded | str]:  # fmt: skip
    """Yield each conversation as tokens, with which of them are learned, or the reason why it cannot be learned.

    A row has `messages`, and where there are some `tools` and the `control_tokens` that its source asks for. A turn is
    learned where its prompt, tokenised alone, is how the tokens of the whole conversation begin, and where it is
    written alike up to its end while it is the last one. Other turns are read only: some templates leave the thoughts
    out of earlier answers. A turn that calls a tool and has no thoughts of its own is learned as it stands, though a
    template may give it empty ones while it is the last. Turns that say `learn: False` are read only too. A
    conversation without one turn to learn from has a reason, and so has one of more than `sequence_length` tokens.
    Without `assistant_only` every token is learned, save those of turns that are context only.
    """
    reader, end = reader_of(tokenizer), turn_end(tokenizer)
    ending = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    plans = [_plan(tokenizer, row, assistant_only) for row in rows]
    written = list(dict.fromkeys(plan.whole for plan in plans if not isinstance(plan, str)))
    whole = dict(zip(written, reader.encode(written), strict=True))
    for number, plan in enumerate(plans):
        if not isinstance(plan, str) and sequence_length is not None and len(whole[plan.whole]) > sequence_length:
            plans[number] = TOO_LONG
    spans: list[list[tuple[int, int] | None]] = [[] for _ in plans]
    for batch in _turns(plans):
        wanted = list(dict.fromkeys(text for _, turn in batch for text in turn[:2] if text not in whole))
        texts = whole | dict(zip(wanted, reader.encode(wanted), strict=True))
        for number, turn in batch:
            ids = whole[cast(_Plan, plans[number]).whole]
            spans[number].append(_span(turn, ids, texts[turn.before], texts[turn.until], end, ending))
    for plan, tried in zip(plans, spans, strict=True):
        if isinstance(plan, str):
            yield plan
            continue
        found = [span for span in tried if span is not None]
        if (tried and not found) if assistant_only else len(found) < len(plan.sought):
            yield NOT_A_PREFIX
            continue
        ids = whole[plan.whole]
        learned = [not assistant_only] * len(ids)
        for start, stop in found:
            learned[start:stop] = [assistant_only] * (stop - start)
        yield Encoded(ids, learned, plan.taken.changed + (READ_ONLY,) * (len(found) < len(tried)))


def _turns(plans: Sequence[_Plan | str]) -> Iterator[list[tuple[int, _Turn]]]:
    """Yield the turns that are sought, each with the number of its conversation, in batches of bounded size."""
    batch: list[tuple[int, _Turn]] = []
    size = 0
    for number, plan in enumerate(plans):
        if isinstance(plan, str):
            continue
        for place in plan.sought:
            if not place or (turn := _turn(plan, place)) is None:
                continue
            batch.append((number, turn))
            size += len(turn.before) + len(turn.until)
            if size >= BATCH_SIZE:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _span(
    turn: _Turn, ids: Sequence[int], before: Sequence[int], last: Sequence[int], end: int | None, ending: Set[int]
) -> tuple[int, int] | None:
    """Return where a turn begins in a conversation, and where it has ended; None where it is written otherwise there.

    `before` and `last` are the turn's texts as tokens, `end` ends a turn, and `ending` are tokens that may.
    """
    start = len(before)
    stop = _first(last, start, end)
    if stop is None:  # a turn that ends otherwise, such as one that calls a tool
        stop = next((place for place in range(len(last) - 1, start - 1, -1) if last[place] in ending), None)
    if turn.as_it_stands and (stop is None or ids[: stop + 1] != last[: stop + 1]):
        stop, last = _first(ids, start, end), ids
    if stop is None or ids[:start] != before or ids[: stop + 1] != last[: stop + 1]:
        return None
    return start, stop + 1


def _first(ids: Sequence[int], start: int, token: int | None) -> int | None:
    """Return the first place of a token from `start` on, or None."""
    return next((place for place in range(start, len(ids)) if ids[place] == token), None)


def opens_turn(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a prompt holds the head of the assistant's turn, if there is one; else a model writes it by itself."""
    before, whole = render(tokenizer, DIALOGUE[:1]) or "", render(tokenizer, DIALOGUE) or ""
    headless = not whole.startswith(before) or whole.removeprefix(before).lstrip().startswith(ANSWER)
    return headless or render(tokenizer, DIALOGUE[:1], prompt=True) != before


def takes_system(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the template writes what a system turn says; true too where it refuses the same without one."""
    instructed = [{"role": "system", "content": "INSTRUCTION"}, *DIALOGUE]
    return render(tokenizer, DIALOGUE) is None or "INSTRUCTION" in (render(tokenizer, instructed) or "")


def _plan(tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any], assistant_only: bool) -> _Plan | str:
    """Return a conversation as text, or the reason why it cannot be learned."""
    messages = row["messages"]
    answers = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    learned = [place for place in answers if messages[place].get("learn") is not False]
    if answers and not learned:
        return ALL_CONTEXT
    try:
        taken = take(tokenizer, messages, row.get("tools"), asked=row.get("control_tokens", ()), learned=learned)
        whole = taken.render()
    except Refusal as refusal:
        return str(refusal)
    return _Plan(taken, whole, learned if assistant_only else [place for place in answers if place not in learned])


def _turn(plan: _Plan, place: int) -> _Turn | None:
    """Return a turn, or None where the template refuses what comes before it, or it as the last one."""
    taken = plan.taken
    message = taken.messages[place]
    calls = bool(message.get("tool_calls")) and not any(message.get(key) for key in THOUGHT_KEYS)
    try:
        until = plan.whole if place == len(taken.messages) - 1 else taken.render(place + 1)
        return _Turn(taken.render(place, prompt=True), until, calls and "</think>" not in str(message["content"]))
    except Refusal:
        return None


def require_trainable_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that what the assistant writes can be found, and ends in a token of its own. Raises ContractError."""
    if not tokenizer.chat_template:
        raise ContractError(f"The tokenizer has no chat template, so conversations cannot be trained on. {WITHOUT}")
    try:
        whole = apply_template(tokenizer, DIALOGUE)
    except Refused as error:
        place = f" in its line {error.line}" if error.line else ""
        raise ContractError(
            f"The chat template refuses a question with its answer{place}: {str(error).rstrip('.')}. {WITHOUT}"
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
    (found,) = encode_turns(tokenizer, [{"messages": DIALOGUE}])
    if isinstance(found, str):
        prompt = render(tokenizer, DIALOGUE[:1], prompt=True)
        raise ContractError(
            f"The chat template ends a prompt in {(prompt or '')[-20:]!r}, whose tokens are others once an answer "
            f"follows, so the assistant's cannot be found. {WITHOUT}"
        )
