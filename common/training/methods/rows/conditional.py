"""Conditional training: a control token before each text, or line, says whether a score finds it good or bad.

Usage: `cpt: {methods: {conditional: {by: toxicity, threshold: 0.00056}}}`, with a block `score` that gives `toxicity`.

Korbak et al. 2023 (arXiv 2302.08582), section 2: of a unit x of text with the score R(x)

    <|good|> x   if R(x) <= t,   <|bad|> x   otherwise,   x alone with the probability `drop`

and the usual loss, of these tokens too. The paper calls them <|aligned|> and <|misaligned|>; a unit is there a sentence
or a line of code. For its toxicity t = 5.6e-4 and drop = 0.01, for style of code t = 0 and drop = 0.1. With `better:
higher` a unit is good from t on. Replay and conversations get no token, and so does a text that names one of the two.

The tokens are added where the chain begins (`model.control_tokens`). The result's generation settings forbid both, and
begin a text that has no prompt with the good one. So do plain questions of an exam (`first_tokens`). Conversations do
not, since their stages train without; nor does a prompt of another program: write the token before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from common.config.methods import MethodSettings, PackedRows, RowsMethod
from common.config.names import NonEmpty
from common.config.stages import ContinuedSettings, WithMethods
from common.data.texts import lines_of, noted

GOOD, BAD, BARE = "marked good", "marked bad", "left without a control token"  # as accounts count rows
TRAINED = ("modules_to_save", "trainable_token_indices")  # options of an adapter: which rows of tokens it trains


class ConditionalSettings(MethodSettings):
    """What is good, and how it is called."""

    by: NonEmpty = Field("toxicity", description="score that a block leaves on rows, such as a function of score")
    unit: Literal["document", "line"] = Field(
        "document", description="what gets a token; line: the block must score lines (score: {lines: true})"
    )
    threshold: float = Field(5.6e-4, description="score up to which a unit is good (t)")
    better: Literal["lower", "higher"] = Field("lower", description="higher: a unit is good from the threshold on")
    drop: float = Field(0.01, ge=0, lt=1, description="share of the units that get no token")
    good: NonEmpty = Field("<|good|>", description="token before good units")
    bad: NonEmpty = Field("<|bad|>", description="token before the others")

    @model_validator(mode="after")
    def _differ(self) -> ConditionalSettings:
        if self.good == self.bad:
            raise ValueError(f"good and bad are both {self.good!r}; give them different names")
        return self

    @property
    def rule(self) -> str:
        """What makes a unit good, in words."""
        return f"{self.by} {'<=' if self.better == 'lower' else '>='} {self.threshold:g}"

    def token(self, score: float) -> str:
        """Return the token of a unit with a score."""
        good = score <= self.threshold if self.better == "lower" else score >= self.threshold
        return self.good if good else self.bad


def rewrite(row: dict[str, Any], settings: ConditionalSettings, seed: int) -> dict[str, Any]:
    """Return a row with its tokens, which its `control_tokens` allow, and with what was done in `changed`."""
    text = row.get("text")
    if text is None or settings.good in text or settings.bad in text:
        return noted(row, BARE)
    if settings.unit == "document":
        parts, scores = [text], [row["scores"][settings.by]]
    else:
        parts, scores = lines_of(text), _scores_of_lines(row, settings)
    tokens = [
        "" if _uniform(f"{seed}/{number}/{text}") < settings.drop else settings.token(score)
        for number, score in enumerate(scores)
    ]
    given = iter(tokens)
    marked = "".join(next(given) + part if part.strip() else part for part in parts)
    for token, what in ((settings.good, GOOD), (settings.bad, BAD), ("", BARE)):
        row = noted(row, what) if token in tokens else row
    return row | {"text": marked, "control_tokens": (*row.get("control_tokens", ()), settings.good, settings.bad)}


def _scores_of_lines(row: dict[str, Any], settings: ConditionalSettings) -> list[float]:
    """Return the scores of a text's lines. Raises ValueError where it has none, or others."""
    scores: list[float] | None = (row.get("line_scores") or {}).get(settings.by)
    if scores is None:
        raise ValueError(
            f"a row of the source '{row['source']}' has no score {settings.by} of its lines. List the block score with "
            f"{{function: {settings.by}, lines: true}} for all rows of the source"
        )
    if (number := sum(bool(line.strip()) for line in lines_of(row["text"]))) != len(scores):
        raise ValueError(
            f"a row of the source '{row['source']}' has {number} lines and {len(scores)} scores of lines. List the "
            "block score behind all blocks that change texts"
        )
    return scores


def _uniform(key: str) -> float:
    """Return a number from 0 to 1 that follows from a text, so that a training that goes on draws it again."""
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:8], "big") / 2**64


def judge(changed: Mapping[str, int], packed: PackedRows, settings: ConditionalSettings) -> dict[str, float]:
    """Return how many rows have which token. Raises ValueError where all have the same: nothing could be learned."""
    good, bad, bare = (changed.get(what, 0) for what in (GOOD, BAD, BARE))
    if good and bad:
        return {"good": good, "bad": bad, "without": bare}
    only = settings.good if good else settings.bad
    raise ValueError(
        f"with {settings.rule} all {good + bad:,} rows that got a token are {only}, so that it tells nothing "
        f"({bare:,} got none){_range(packed, settings)}. Set a threshold that parts them"
    )


def _range(packed: PackedRows, settings: ConditionalSettings) -> str:
    import numpy as np

    column = f"score/{settings.by}"
    if column not in packed.rows.column_names:  # that of lines, which is no part of packed rows
        return ""
    scores = np.concatenate([np.asarray(scores) for scores in packed.rows.select(packed.own)[column]])
    low, middle, high = np.quantile(scores, [0, 0.5, 1])
    return f". The lowest score is {low:.4g}, the median {middle:.4g}, the highest {high:.4g}"


def problem(own: ConditionalSettings, stage: WithMethods) -> str:
    """Say why a stage cannot use it, or nothing."""
    if stage.learns_answers:
        return "it marks texts, and this stage learns from conversations. Set it for a stage of texts, such as cpt"
    if isinstance(stage, ContinuedSettings) and stage.train_only == "added" and "embed_tokens" not in stage.train_also:
        return (
            f"train_only=added leaves the rows of {own.good} and {own.bad} as they were drawn. Add embed_tokens to "
            "train_also"
        )
    given = [name for name in TRAINED if name in (stage.lora or {})]
    saved = {str(name).rpartition(".")[2] for name in (stage.lora or {}).get("modules_to_save") or ()}
    if stage.peft != "full" and given and "embed_tokens" not in saved:
        return (
            f"lora.{given[0]} is set, so that the adapter leaves the rows of {own.good} and {own.bad} as they were "
            "drawn. Leave it out, which trains the rows of new tokens, or name embed_tokens in lora.modules_to_save"
        )
    return ""


def finish(model: Any, tokenizer: Any, settings: ConditionalSettings) -> None:
    """Forbid both tokens in what the model generates, and begin with the good one where there is no prompt."""
    ids = [int(tokenizer.convert_tokens_to_ids(name)) for name in (settings.good, settings.bad)]
    generation = model.generation_config
    generation.suppress_tokens = sorted({*(generation.suppress_tokens or ()), *ids})
    generation.bos_token_id = ids[0]


METHOD = RowsMethod(
    name="conditional", settings=ConditionalSettings, rewrite=rewrite, judge=judge, problem=problem, finish=finish,
    scores=lambda own: (own.by,) if own.unit == "document" else (),
    line_scores=lambda own: (own.by,) if own.unit == "line" else (),
    new_tokens=lambda own: (own.good, own.bad),
    phrase="a control token before each text says whether a score finds it good; generation forbids both",
    paper="arXiv 2302.08582, section 2", ours="the names of the tokens, and whole documents as units",
)  # fmt: skip
