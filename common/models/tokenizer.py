"""The tiny base's tokenizer and chat template, and the templates for checkpoints that have none.

Usage: `tokenizer = train_tokenizer(texts, vocabulary_size=1024)`.

A byte-level BPE can encode every text of every language. It is trained on the general world and on common English
words, never on a domain, so all domains share one base.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import ContractError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

PAD, END, SYSTEM, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"

WORDS = Path(__file__).parents[1] / "data" / "general" / "words.txt"
WORD_REPEATS = 60
PROBES = ("a", "The quick brown fox", f"{'x' * 24} the 12,345 words of a text, and a line\n\tmore.")
MOST_TOKENS = 64  # of a character; bytes of an emoji take four

# The markers of the assistant's part are for other programs; ours finds it without (`common.models.turns`).
CHAT_TEMPLATE = """\
{%- for message in messages %}
{%- if message['role'] == 'system' %}<|system|>{{ message['content'] | trim }}<|end|>
{%- elif message['role'] == 'user' %}<|user|>{{ message['content'] | trim }}<|end|>
{%- elif message['role'] == 'assistant' %}<|assistant|>
{%- generation %}{{ message['content'] | trim }}<|end|>{% endgeneration %}
{%- else %}{{ raise_exception('unknown role ' ~ message['role']) }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""

TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"
# ChatML as Qwen and SmolLM2 write it, without a system prompt of its own.
CHATML = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\n' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}{{- message['content'] | trim + '<|im_end|>' }}{% endgeneration %}
{%- else %}
{{- message['content'] | trim + '<|im_end|>' }}
{%- endif %}
{{- '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{% endif %}"""

# For a base without tokens of a chat: roles in plain words, and its own end of a document as the end of a turn. No row
# of the embedding is new, so nothing has to be learned before the first answer.
PLAIN = """\
{%- for message in messages %}
{{- message['role'] | capitalize + ':\n' + message['content'] | trim }}
{%- if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}
{{- '\n\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- 'Assistant:\n' }}{% endif %}"""
# Before a template that has no place for a system turn: its text begins the first turn of the user.
FOLD_SYSTEM = """\
{% if messages | length > 1 and messages[0]['role'] == 'system' %}\
{% set messages = [{'role': messages[1]['role'], 'content': messages[0]['content'] ~ '\n\n' ~ messages[1]['content']}] \
+ messages[2:] %}\
{% endif %}"""


def train_tokenizer(texts: Iterable[str], vocabulary_size: int, context_length: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE with the chat tokens of CHAT_TEMPLATE. Deterministic for equal texts in equal order."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    # A space before the first word makes an answer's tokens the same at the start of a turn as inside a sentence.
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size, special_tokens=[PAD, END, SYSTEM, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    core.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=PAD, eos_token=END, additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        model_max_length=context_length, clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def fault_of(tokenizer: Any) -> str:
    """Return what keeps a tokenizer that was loaded from being used, found by texts of growing length; else nothing.

    Its patterns may fail on a text or take any time for it, and what it replaces may grow without end.
    """
    if not hasattr(tokenizer, "get_vocab"):
        return f"is none but a {type(tokenizer).__name__} (tokenizer_class in tokenizer_config.json)"
    _ = tokenizer.all_special_ids  # fails where a special token is an empty text
    return fault_in_words(lambda text: list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]))


def fault_in_words(encode: Callable[[str], list[int]]) -> str:
    """Return what is wrong with the ids of a few texts, else nothing."""
    for text in PROBES:
        ids = encode(text)
        if not ids:
            return f"writes {text!r} as no token at all; expected some (tokenizer.json)"
        if len(ids) > MOST_TOKENS * len(text):
            return f"writes {text!r} as {len(ids):,} tokens; expected a few for each character (tokenizer.json)"
    return ""


def give_chatml(tokenizer: PreTrainedTokenizerBase, model: Any) -> None:
    """Give a base model plain ChatML, and make the end of a turn its stop token.

    Base models of the Qwen family have a template that ends a turn in <|im_end|>, but <|endoftext|> is their stop token
    and their padding (QwenLM/Qwen3, issue 927). Those of SmolLM2 have the tokens alone. Both have read ChatML in
    pre-training or have embedding rows for it. Raises ContractError where the tokenizer has no such tokens.
    """
    if not knows_chatml(tokenizer):
        raise ContractError(
            f"model.chat_template=chatml needs the tokens {TURN_START} and {TURN_END}, which this tokenizer lacks. Use "
            "model.chat_template=plain, which needs no token, or own with a checkpoint that has a template."
        )
    before = tokenizer.eos_token
    tokenizer.chat_template = CHATML
    tokenizer.eos_token = TURN_END
    if tokenizer.pad_token in (None, TURN_END):
        tokenizer.pad_token = before
    for settings in (model.config, model.generation_config):
        settings.eos_token_id, settings.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id


def knows_chatml(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer has the tokens of ChatML."""
    return {TURN_START, TURN_END} <= set(tokenizer.get_vocab())


def common_words() -> Iterator[str]:
    """Yield common English words of many fields, repeated often enough to count among the base's documents."""
    lines = WORDS.read_text(encoding="utf-8").splitlines()
    text = " ".join(line for line in lines if not line.startswith("#"))
    yield from [text] * WORD_REPEATS
