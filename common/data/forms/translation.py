"""The form `translation`: a text and its translation as a conversation that asks in the language of the text.

Usage: `write({"source": ["Hi."], "target": ["Jambo."]}, TranslationAskedSettings(languages=("en", "sw")))`. In a
manifest, with role sft: `form: {translation: {languages: [en, sw]}}` and `columns: {source: en, target: sw}`.

The third stage of arXiv 2403.11430 fine-tunes on instructions in the language of the source text, after CPT on
interlinear documents. Their sentences are not known to us: those here are ours, and name the target language in itself.
`ask` gives another one; its {source} and {target} become the names of the languages in themselves, or their codes.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from common.config.forms import Form, Row
from common.config.names import NonEmpty
from common.data.forms.interlinear import TranslationSettings, fill

ASKED = {
    "de": "Übersetze diesen Text in die Sprache {target}:",
    "en": "Translate this text into {target}:",
    "es": "Traduce este texto al idioma {target}:",
    "fr": "Traduis ce texte dans la langue {target} :",
    "it": "Traduci questo testo nella lingua {target}:",
    "ja": "次の文章を{target}に翻訳してください。",
    "pt": "Traduza este texto para o idioma {target}:",
    "ru": "Переведи этот текст на язык {target}:",
    "sw": "Tafsiri maandishi haya kwa lugha ya {target}:",
    "zh": "请将下面的文字翻译成{target}：",  # noqa: RUF001 - the colon of Chinese
}
NAMES = {  # of languages in themselves
    "de": "Deutsch", "en": "English", "es": "español", "fr": "français", "it": "italiano", "ja": "日本語",
    "pt": "português", "ru": "русский", "sw": "Kiswahili", "zh": "中文",
}  # fmt: skip


class TranslationAskedSettings(TranslationSettings):
    """Between which languages, and how it is asked."""

    ask: NonEmpty | None = Field(
        None,
        description="the instruction, in the language of the source, as 'Translate into {target}:'; none: one of ours",
    )

    @model_validator(mode="after")
    def _can_ask(self) -> TranslationAskedSettings:
        source, target = (code.partition("-")[0] for code in self.languages)
        if self.ask is None and (source not in ASKED or target not in NAMES):
            lacking = source if source not in ASKED else target
            raise ValueError(
                f"no instruction is known for '{lacking}' (known: {', '.join(ASKED)}). Write one in the language of "
                "the source: ask: …"
            )
        _ = self.instruction  # refuses other braces
        return self

    @property
    def instruction(self) -> str:
        """What is asked, before the text."""
        source, target = (code.partition("-")[0] for code in self.languages)
        names = (NAMES.get(short, code) for short, code in zip((source, target), self.languages, strict=True))
        return fill(self.ask or ASKED[source], *names)


def write(row: Row, own: TranslationAskedSettings) -> Row:
    """Return two turns: the instruction with the text below it, and the translation."""
    asked, answer = ("\n".join(row[name]) for name in ("source", "target"))
    return {
        "messages": [
            {"role": "user", "content": f"{own.instruction}\n\n{asked}"},
            {"role": "assistant", "content": answer},
        ]
    }


FORM = Form(
    name="translation", settings=TranslationAskedSettings, takes=("parallel",), makes="chat", write=write,
    phrase="translation asked for in the language of the text",
    paper="arXiv 2403.11430, stage 3", ours="the sentences that ask",
)  # fmt: skip
