"""Rows of the stages that train on tokens, as the trainer's collator gives them to the model.

Usage: `preview = packed_rows(context, tokenizer, at=1, number=5)`.

The stage's own code reads, masks, packs and orders the rows (`common.training.rows`). What is found out here is only
which document each part of a row was, and why tokens of it carry no loss.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from common.config.base import Limits
from common.config.kinds import kind_of
from common.config.stages import TrainingSettings
from common.data.accounting import RowCount, check_limits
from common.engine.preview.origins import Origin, Origins
from common.errors import ConfigError, ContractError
from common.models import contracts
from common.models.turns import READ_ONLY, encode_turns, require_trainable_template
from common.report.views import CONTEXT, FIRST, NOT_ASSISTANT, OTHERWISE, Part, Preview, View, tokens_of
from common.stage import StageContext
from common.training.options import sft_options
from common.training.rows.packing import IGNORED, PARTS, RowCollator, starts_of
from common.training.rows.rows import TrainingRows, build_rows

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

LENIENT = Limits(dropped=1.0, truncated=1.0, masked=1.0)
APART = "Documents that are packed in one row cannot see each other"
BEHIND = "The stages before have read {:,} tokens of {}, behind which these rows begin (continue_data)"
AGAIN = "; {:.1%} of the stage's budget of {} is read again"
REORDERED = (
    "packing: trl prepares these rows; its trainer shuffles them again in every pass, and whether documents of a row "
    "see each other is up to its own settings"
)


def packed_rows(context: StageContext, tokenizer: PreTrainedTokenizerBase, at: int, number: int) -> Preview:
    """Return rows of a stage from `at` on, counted from 1. Raises DataError as the stage does, ConfigError beyond."""
    settings = cast(TrainingSettings, context.settings)
    if settings.assistant_only:
        require_trainable_template(tokenizer)
    lenient = replace(context, settings=settings.model_copy(update={"limits": LENIENT}))
    isolated = settings.packing == "isolated"
    with Origins(context.work, settings.sequence_length) as origins:
        rows = build_rows(
            lenient, tokenizer, role=kind_of(context.kind).roles[0], assistant_only=settings.assistant_only,
            witness=origins,
        )  # fmt: skip
        dataset = rows.dataset if isolated else _as_trl_prepares(context, rows)
        title = title_of(context.stage, at, number, len(dataset))
        chosen = dataset.select(range(at - 1, min(len(dataset), at - 1 + number)))
        views = tuple(
            _view(place, len(dataset), row, settings, tokenizer, origins) for place, row in enumerate(chosen, at)
        )
    notes = limit_notes(rows.counts, settings.limits, context.stage)
    if settings.learns_answers:
        labels = [row.labels for row in rows.samples]
        notes += _stopping(partial(contracts.check_stop_is_learned, labels, tokenizer))
    if rows.validation is not None:
        notes.append(f"{len(rows.validation):,} more rows never train: the stage is measured on them (validation)")
    for role, found in rows.continued.items():
        again = AGAIN.format(found["again"], role) if found["again"] else ""
        notes.append(f"{BEHIND.format(found['passed'], role)}{again}")
    notes.append(APART if isolated else REORDERED)
    if isolated:
        each = settings.batch_tokens // settings.sequence_length
        title += f", in the trainer's order; {each:,} of them make a step, {rows.steps:,} steps"
    return Preview(title, views, tuple(rows.counts), dict(origins.learned), origins.all_rejects(), tuple(notes))


def title_of(stage: str, at: int, number: int, total: int) -> str:
    """Say which rows of a stage are shown: up to `number` from `at` on. Raises ConfigError where there is none."""
    if at > total:
        raise ConfigError(f"at={at}: stage {stage} has {total:,} rows. Give at=<1 to {total}>.")
    last = min(total, at - 1 + number)
    shown = f"row {at:,}" if at == last else f"rows {at:,} to {last:,}"
    return f"{stage}: {shown} of {total:,}"


def limit_notes(counts: Iterable[RowCount], limits: Limits, stage: str) -> list[str]:
    """Say that the stage itself would lose too many rows, where it would."""
    return _stopping(partial(check_limits, counts, limits, stage))


def _stopping(check: Callable[[], object]) -> list[str]:
    """Say that the stage itself would stop at a check, where it would."""
    try:
        check()
    except ContractError as error:
        return [f"The stage itself would stop here. {error}"]
    return []


def _as_trl_prepares(context: StageContext, rows: TrainingRows) -> Dataset:
    """Return the rows that SFTTrainer makes of ours under `packing: trl`: packed by its function, or cut as it cuts."""
    from trl import pack_dataset

    settings = cast(TrainingSettings, context.settings)
    options = sft_options(settings, context.config, context.work, steps=rows.steps, stage=context.stage)
    most = options["max_length"]
    if options.get("packing"):
        return pack_dataset(rows.dataset, most, options.get("packing_strategy", "bfd"))
    if most is None:
        return rows.dataset
    kept = slice(-most, None) if options.get("truncation_mode") == "keep_end" else slice(None, most)
    cut = rows.dataset.map(lambda row: {name: row[name][kept] for name in ("input_ids", "labels")})
    return cut.filter(lambda row: any(label != IGNORED for label in row["labels"]))


def _view(
    place: int, total: int, row: dict[str, Any], settings: TrainingSettings, tokenizer: PreTrainedTokenizerBase,
    origins: Origins,
) -> View:  # fmt: skip
    """Return one row; what carries loss is what the collator says."""
    lengths = row.get("seq_lengths") or [len(row["input_ids"])]
    row = {**row, "seq_lengths": lengths}
    width = max(settings.sequence_length, len(row["input_ids"]))
    batch = RowCollator(tokenizer.pad_token_id or 0, width)([row])
    ids, labels = batch["input_ids"].flatten().tolist(), batch["labels"].flatten().tolist()
    cut = set(starts_of(row, width).tolist())
    parts, start = [], 0
    for number, length in enumerate(lengths, 1):
        span = slice(start, start + length)
        parts.append(_part(number, start, ids[span], labels[span], settings, tokenizer, origins, cut))
        start += length
    padding = width - start if settings.packing == "isolated" else 0
    learned, filled = sum(part.num_learned for part in parts), sum(part.num_tokens for part in parts)
    short = f", read as {row[PARTS]} rows of {width // row[PARTS]:,}" if row.get(PARTS, 1) > 1 else ""
    documents = "1 document" if len(parts) == 1 else f"{len(parts)} documents"
    step = f" (step {(place - 1) * settings.sequence_length // settings.batch_tokens + 1:,})"
    title = (
        f"Row {place:,} of {total:,}{step if settings.packing == 'isolated' else ''}: {documents}, {filled:,} tokens, "
        f"{learned:,} with loss, {padding:,} of padding{short}"
    )
    return View(title, tuple(parts), padding)


def _part(
    number: int, start: int, ids: Sequence[int], labels: Sequence[int], settings: TrainingSettings,
    tokenizer: PreTrainedTokenizerBase, origins: Origins, cut: Collection[int],
) -> Part:  # fmt: skip
    """Return one document of a row, with where it comes from. It is cut at some places of the row."""
    origin = origins.of(ids)
    why = _reasons(ids, labels, settings, tokenizer, origin)
    why = [FIRST if reason and place and start + place in cut else reason for place, reason in enumerate(why)]
    title = f"{number}. at token {start + 1:,}, {len(ids):,} tokens"
    if origin is None:
        return Part(f"{title}, of a document that cannot be told", tokens_of(tokenizer, ids, why))
    replayed = " (replay)" if origin.role == "replay" else ""
    title += f", source {origin.row['source']}{replayed}, document {origin.number:,}"
    notes = list(origin.changed)
    if origin.length > len(ids):
        notes.append(
            f"tokens {origin.start + 1:,} to {origin.start + len(ids):,} of a document of {origin.length:,}, which is "
            "longer than a row"
        )
    return Part(title, tokens_of(tokenizer, ids, why), tuple(notes))


def _reasons(
    ids: Sequence[int], labels: Sequence[int], settings: TrainingSettings, tokenizer: PreTrainedTokenizerBase,
    origin: Origin | None,
) -> list[str]:  # fmt: skip
    """Return why each token carries no loss, "" for those that do."""
    read_only = origin is not None and READ_ONLY in origin.changed
    masked = CONTEXT if not settings.assistant_only else OTHERWISE if read_only else NOT_ASSISTANT
    found = ["" if label != IGNORED else masked for label in labels]
    if found and found[0] and (not settings.assistant_only or IGNORED not in labels[1:]):
        found[0] = FIRST
    if settings.assistant_only and origin is not None:
        for place in _of_context(ids, labels, tokenizer, origin.row):
            found[place] = CONTEXT
    return found


def _of_context(
    ids: Sequence[int], labels: Sequence[int], tokenizer: PreTrainedTokenizerBase, row: dict[str, Any]
) -> list[int]:
    """Return the places of the answers that the data want as context: they are learned where nothing says so."""
    messages = row.get("messages", ())
    if all(message.get("learn") is not False for message in messages):
        return []
    wanted = {**row, "messages": [{k: v for k, v in message.items() if k != "learn"} for message in messages]}
    (whole,) = encode_turns(tokenizer, [wanted])
    if isinstance(whole, str) or list(whole.ids) != list(ids):
        return []
    return [place for place, learned in enumerate(whole.learned) if learned and labels[place] == IGNORED]
