"""Rows of the stages that learn from answers: pairs, single answers with a label, and prompts that a model answers.

Usage: `preview = preference_rows(context, tokenizer, at=1, number=5)`, or `prompt_rows(...)` with the same arguments.

They are read and tokenised by the code that the stages call (`common.training.rows`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from common.config.answering import AnsweringSettings, ExpertSettings, RewardedSettings
from common.config.kinds import kind_of
from common.config.stages import KtoSettings, PreferenceSettings, RewardSettings
from common.data.accounting import RowCount
from common.engine.preview.origins import Origins
from common.engine.preview.packed import limit_notes, title_of
from common.errors import DataError, quoted
from common.models.rendering import encode_chat
from common.report.views import NO_LOSS, PROMPT, Part, Preview, View, tokens_of
from common.stage import StageContext
from common.stages.preference import pairs_that_train
from common.training.rows.preferences import Pair, Preference, read_pairs, read_preferences
from common.training.rows.prompts import read_prompts
from common.training.rows.reader import origin

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHUFFLED = "The trainer shuffles these rows again in every pass; here they stand as they are read"
REORDERED = "Each pass asks these prompts in a new seeded order; here they stand as they are read"
DRAWN = "The model's own answers are drawn while the stage runs, and are what it learns from"


def preference_rows(context: StageContext, tokenizer: PreTrainedTokenizerBase, at: int, number: int) -> Preview:
    """Return pairs, and for KTO also single answers, from `at` on. Raises DataError where none is usable."""
    settings = cast(PreferenceSettings, context.settings)
    found: Sequence[Preference]
    with Origins(context.work, settings.sequence_length) as origins:
        if isinstance(settings, KtoSettings):
            found, counts = read_preferences(context, tokenizer, "preference", origins)
        else:
            found, counts = read_pairs(context, tokenizer, "preference", origins)
    require_some(context, "preference", len(found), counts)
    usable = found
    found = pairs_that_train(found, settings, referenced=kind_of(context.kind).reference)
    title = title_of(context.stage, at, number, len(found))
    views = tuple(
        _preference(place, len(found), one, settings, tokenizer)
        for place, one in enumerate(found[at - 1 : at - 1 + number], at)
    )
    learned: Counter[tuple[str, str]] = Counter()
    for one in usable:
        answers = sum(len(ids) - one.start for ids, _ in one.sides)
        learned["preference", one.row["source"]] += 0 if isinstance(settings, RewardSettings) else answers
    notes = [*limit_notes(counts, settings.limits, context.stage), SHUFFLED]
    if len(found) < len(usable):
        notes.append(
            f"Of {len(usable):,} usable rows the first {len(found):,} train, as the budget is less than a pass"
        )
    if isinstance(settings, RewardSettings):
        notes.append(
            "A reward model learns one number for a whole answer, read at its last token. The pairs of "
            f"{settings.heldout:.0%} of the prompts never train ({context.stage}.heldout)"
        )
    return Preview(title, views, tuple(counts), dict(learned), origins.all_rejects(), tuple(notes))


def _preference(
    place: int, total: int, one: Preference, settings: PreferenceSettings, tokenizer: PreTrainedTokenizerBase
) -> View:
    """Return a prompt with its answers, whose tokens carry the loss."""
    prompt = list(one.sides[0][0][: one.start])
    source = f"source {one.row['source']}"
    parts = [Part(f"prompt, {source}", tokens_of(tokenizer, prompt, [PROMPT] * len(prompt)), one.changed)]
    pair, apart = isinstance(one, Pair), isinstance(settings, KtoSettings)
    why = NO_LOSS if isinstance(settings, RewardSettings) else ""
    for (ids, start), wanted in zip(one.sides, one.labels, strict=True):
        side = "completion" if not pair else "chosen" if wanted else "rejected"
        label = f"{side}, {'wanted' if wanted else 'unwanted'} (label: {str(wanted).lower()})" if apart else side
        parts.append(Part(label, tokens_of(tokenizer, list(ids[start:]), [why] * (len(ids) - start))))
    kind = "pair, two rows of their own" if pair and apart else "pair" if pair else "single answer"
    sizes = " + ".join(f"{part.num_tokens:,}" for part in parts)
    return View(f"Row {place:,} of {total:,}: {kind}, {sizes} tokens", tuple(parts))


def prompt_rows(context: StageContext, tokenizer: PreTrainedTokenizerBase, at: int, number: int) -> Preview:
    """Return the prompts that train, from `at` on; those that the stage keeps to measure itself are not among them.

    Raises DataError where none is usable.
    """
    settings = cast(AnsweringSettings, context.settings)
    with Origins(context.work, settings.prompt_tokens) as origins:
        rows, counts = read_prompts(context, tokenizer, origins)
    require_some(context, "prompts", len(rows), counts)
    kept = 0
    if isinstance(settings, ExpertSettings):
        kept = settings.heldout
    elif isinstance(settings, RewardedSettings):
        kept = settings.watch.prompts
    reordered = [REORDERED] if isinstance(settings, RewardedSettings) else []
    training = rows[kept:]
    if not training:
        raise DataError(
            f"Stage {context.stage} has {len(rows)} usable prompts, and keeps {kept} from training to measure itself. "
            "Add prompts, or keep fewer."
        )
    title = title_of(context.stage, at, number, len(training))
    views = []
    for place, row in enumerate(training[at - 1 : at - 1 + number], at):
        ids = encode_chat(tokenizer, row["prompt"], prompt=True)
        known = [f"right answer: {quoted(row[key])}" for key in ("answer", "answers") if row.get(key) is not None]
        known += [f"choices: {quoted(row['choices'])}"] if row.get("choices") else []
        heading = f"Row {place:,} of {len(training):,}: prompt, source {row['source']}, {len(ids):,} tokens"
        views.append(View(heading, (Part("prompt", tokens_of(tokenizer, ids, [PROMPT] * len(ids)), tuple(known)),)))
    notes = [*limit_notes(counts, getattr(settings, "limits"), context.stage), DRAWN, *reordered]  # noqa: B009  # all these have them
    if kept:
        notes.append(f"{kept:,} more prompts never train: the stage is measured on them")
    return Preview(title, tuple(views), tuple(counts), {}, origins.all_rejects(), tuple(notes))


def require_some(context: StageContext, role: str, number: int, counts: Sequence[RowCount]) -> None:
    """Raise DataError where no row is usable, with what was found in each source."""
    if number:
        return
    lost = [count for count in counts if count.dropped]
    found = "; ".join(f"source '{count.source}': dropped {count.losses}" for count in lost) or "none read"
    otherwise = f"Add sources with role: {role}"
    remedy = max(lost, key=lambda count: count.num_dropped).remedy(otherwise) if lost else otherwise
    raise DataError(f"Stage {context.stage}: {origin(context, role)} has no usable row ({found}). {remedy}.")
