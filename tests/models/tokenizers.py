"""Small tokenizers of the kinds that published checkpoints have, and templates in the shape of theirs.

Usage: `tokenizer = KINDS["llama"]()`, `tokenizer.chat_template = QWEN`. All of them can write every text back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

WORDS = ["what ends a turn of the user, and what the assistant said; a tool call of the city, in short"] * 3
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "[INST]", "[/INST]", "<|eot_id|>", "[TOOL_CALLS]"]
TAGS = ["<think>", "</think>", "<tool_call>", "</tool_call>"]  # as in Qwen3, none of them is special
_CHARACTERS = "▁<>|/[]_=\"'{}().,;:?!-\n" + "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def qwen() -> Any:
    """Byte-level BPE without a token before a text, as GPT-2, Qwen and Llama 3 have."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    core.train_from_iterator(WORDS, trainer)
    return _finished(core, bos_token=None, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def llama() -> Any:
    """BPE of SentencePiece: blanks are a character, unknown ones are bytes, and a text begins with a token."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors

    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *_CHARACTERS]
    merges = [("▁", "a"), ("e", "n"), ("t", "u"), ("tu", "r"), ("tur", "n")]
    vocabulary = {name: place for place, name in enumerate([*names, *(a + b for a, b in merges)])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return _finished(core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def unigram() -> Any:
    """Unigram pieces, whose search could take the name of a control token for one of them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((one, -4.0) for one in _CHARACTERS), ("▁turn", -3.0)]
    core = Tokenizer(models.Unigram(pieces, unk_id=0))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    core.decoder = decoders.Metaspace(prepend_scheme="first")
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    return _finished(core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def _finished(core: Any, **tokens: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, clean_up_tokenization_spaces=False, **tokens)
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    tokenizer.add_tokens([*TAGS, "carcinoma"])
    return tokenizer


KINDS: dict[str, Callable[[], Any]] = {"qwen": qwen, "llama": llama, "unigram": unigram}

# In the shape of Qwen3's: calls and thoughts are tags, a tool answers in a turn of the user, and earlier answers lose
# their thoughts.
QWEN = """\
{%- if tools %}<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content + '\\n\\n' }}{% endif %}Tools:
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}<|im_end|>
{% elif messages[0].role == 'system' %}<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif %}
{%- set asked = namespace(last=-1) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set asked.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
{%- if m.role == 'user' %}<|im_start|>user
{{ m.content }}<|im_end|>
{% elif m.role == 'assistant' %}
{%- set said = m.content %}
{%- set thought = m.reasoning_content or '' %}
{%- if not thought and '</think>' in said %}
{%- set thought = said.split('</think>')[0].split('<think>')[-1].strip('\\n') %}
{%- set said = said.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}<|im_start|>assistant
{% if loop.index0 > asked.last and (loop.last or thought) %}<think>
{{ thought }}
</think>

{% endif %}{{ said }}
{%- for call in m.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% elif m.role == 'tool' %}<|im_start|>user
<tool_response>
{{ m.content }}
</tool_response><|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

# In the shape of Llama 3.1's: one call a turn, without a word beside it, and tools in the first turn of the user.
LLAMA = """\
{{- bos_token }}
{%- for m in messages %}
{%- if m.tool_calls %}
{%- if m.tool_calls | length != 1 %}
{{- raise_exception('This model only supports single tool-calls at once!') }}
{%- endif %}
{{- '<|im_start|>assistant\\n\\n{"name": "' + m.tool_calls[0].function.name + '", "parameters": ' }}
{{- m.tool_calls[0].function.arguments | tojson }}{{ '}<|eot_id|>' }}
{%- elif m.role == 'tool' %}{{- '<|im_start|>ipython\\n\\n' }}{{ m.content | tojson }}{{ '<|eot_id|>' }}
{%- else %}{{- '<|im_start|>' + m.role + '\\n\\n' }}
{%- if tools and loop.first %}{{ tools | tojson }}{{ '\\n' }}{% endif %}{{ m.content | trim }}{{ '<|eot_id|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n\\n' }}{% endif %}"""

# In the shape of Mistral's: the id of a call has nine letters, a turn makes several calls, and none is of the system.
MISTRAL = """\
{{- bos_token }}
{%- set asked = namespace(last=-1) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set asked.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
{%- if m.role == 'user' %}{{ '[INST] ' }}
{%- if tools and loop.index0 == asked.last %}{{ tools | tojson }}{% endif %}{{ m.content }}{{ '[/INST]' }}
{%- elif m.tool_calls %}{{ '[TOOL_CALLS] [' }}
{%- for call in m.tool_calls %}
{%- if call.id | length != 9 %}
{{- raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}
{%- endif %}
{{- '{"name": "' + call.function.name + '", "arguments": ' }}{{ call.function.arguments | tojson }}
{{- ', "id": "' + call.id + '"}' }}{% if not loop.last %}{{ ', ' }}{% endif %}
{%- endfor %}{{ ']' }}{{ eos_token }}
{%- elif m.role == 'tool' %}{{ '[TOOL_RESULTS] ' }}{{ m.content }}{{ '[/TOOL_RESULTS]' }}
{%- elif m.role == 'assistant' %}{{ ' ' + m.content | trim }}{{ eos_token }}
{%- else %}{{ raise_exception('Only user, assistant and tool roles are supported!') }}
{%- endif %}
{%- endfor %}"""
