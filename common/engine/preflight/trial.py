"""A trial reading of the rows of every stage, by the code that reads them in the stage, before the first one begins.

Usage: `lines = try_rows(plan, console)`, from `common.engine.run`.

Small sources are read whole, of large ones and of the Hub's the first rows. What a stage would stop for stops the run
here, in the stage's own words: rows that a chat template refuses, that are all too long, or that leave nothing to
learn; and a tokenizer or a chat template that no stage can work with. It trains nothing, and it reads no weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from common.config.answering import ExpertSettings, PromptedSettings, RewardedSettings
from common.config.base import StageSettings
from common.config.batches import own_share
from common.config.kinds import kind_of
from common.config.node import Node
from common.config.resolve import EMBEDDED
from common.config.rl_pretrain import RlPretrainSettings
from common.config.schema import Config
from common.config.stages import KtoSettings, PreferenceSettings, TrainingSettings
from common.config.vocabulary import tokenizer_stage
from common.console import Console
from common.data.accounting import RowCount
from common.data.exam_passages import Passage
from common.data.leading import Leading
from common.engine.plan import Plan, start_of
from common.engine.preflight.benchmarks import Benchmarks
from common.engine.preflight.losses import describe, judge, scaled
from common.errors import DataError
from common.models import checkpoint, contracts
from common.models.source import find_tokenizer
from common.models.turns import require_trainable_template
from common.stage import StageContext
from common.stages.base import make_tokenizer, tokenizer_of
from common.stages.preference import require_pairs
from common.stages.tokenizer import extend
from common.training.options import steps_for
from common.training.rows.paragraphs import Asking, read_paragraphs
from common.training.rows.preferences import read_pairs, read_preferences
from common.training.rows.prepared import SAMPLES
from common.training.rows.prompts import read_prompts
from common.training.rows.reader import origin, require_rows
from common.training.rows.rows import readers_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_BENCHMARKS: Mapping[str, Benchmarks] = MappingProxyType({})
PRETRAIN_BYTES = 16_000_000  # of text that a tokenizer is trained on for a trial


def try_rows(plan: Plan, console: Console, benchmarks: Mapping[str, Benchmarks] = NO_BENCHMARKS) -> list[str]:
    """Read the rows of the stages that will run, held against `benchmarks` too. Returns what is worth saying, by line.

    `benchmarks` are by domain. Raises ContractError, DataError and ConfigError as the first of them would that cannot
    go on.
    """
    rows = Rows(plan, {domain: found.passages for domain, found in benchmarks.items()})
    tokenizers, lines = Tokenizers(plan, rows), dict[str, None]()
    for domain, part in plan.by_domain.items():
        if part.to_do and (domain or not plan.parts):  # what is left of a sequence reads no rows
            lines |= dict.fromkeys(_try_part(part, rows, tokenizers, console))
    return list(lines)


def _try_part(plan: Plan, rows: Rows, tokenizers: Tokenizers, console: Console) -> list[str]:
    """Do so for one domain."""
    resolved, nodes = plan.resolved, [step.node for step in plan.to_do]
    reading = [node for node in nodes if _reads(node)]
    takes = any(kind_of(node.kind).starts for node in nodes) and resolved.config.model.path is not None
    extending = [node for node in nodes if kind_of(node.kind).changes_tokenizer]
    if resolved.config.data == EMBEDDED and not takes and not extending:
        return []
    start, _ = tokenizers.after(start_of(resolved).name)
    for node in extending if start is not None else ():
        tokenizers.after(node.name)
    if resolved.config.data == EMBEDDED:
        return []
    if start is None:
        return ["rows are not tried before the first stage: the checkpoint's tokenizer is not on this machine yet"]
    lines: dict[str, None] = {}
    with console.progress("trying the rows", len(reading), "stages") as bar:
        tried = set[str]()
        for number, node in enumerate(reading):
            alike = f"{node.kind} {resolved.config.stages[node.name].model_dump_json()}"
            alike += f" {tokenizer_stage(node.name, resolved.nodes)}"
            if alike in tried:
                continue
            tried.add(alike)
            tokenizer, guess = tokenizers.after(node.parent or node.name)
            assert tokenizer is not None, "that of the start is known"
            trial = Trial(node, resolved.config, rows.of(node), tokenizer, guess, rows.passages(node))
            lines |= dict.fromkeys([*trial.doubts(), *trial.lines()])
            bar.update(number + 1)
    return list(lines)


def _reads(node: Node) -> bool:
    """Whether a stage trains on rows of the corpus that are there before it begins."""
    kind = kind_of(node.kind)
    trains = kind.makes != "report" and not kind.starts and not kind.changes_tokenizer
    return bool(kind.roles) and trains and not node.sampled


class Rows:
    """The first rows that stages read, and what they are held against: those of a stage's own domain."""

    def __init__(self, plan: Plan, passages: Mapping[str, tuple[Passage, ...]]) -> None:
        self._plan, self._passages = plan, passages
        self._known: dict[str, Leading] = {}

    def of(self, node: Node) -> Leading:
        part, domain = self._plan.part(node), node.domain
        assert part.outlook.sizes is not None, "a plan knows its corpus"
        if domain not in self._known:
            self._known[domain] = Leading(part.corpus, part.outlook.sizes)
        return self._known[domain]

    def passages(self, node: Node) -> tuple[Passage, ...]:
        return self._passages.get(node.domain, ())


class Tokenizers:
    """The tokenizers that the results of all stages will have, each loaded or made when first asked for."""

    def __init__(self, plan: Plan, rows: Rows) -> None:
        self._plan, self._rows = plan, rows
        self._known: dict[str, tuple[PreTrainedTokenizerBase | None, str]] = {}

    def after(self, name: str) -> tuple[PreTrainedTokenizerBase | None, str]:
        """Return the tokenizer of a stage's result, None where it is not on this machine, and what is uncertain of it.

        Raises ConfigError where a stage cannot extend it, or has nothing to add.
        """
        source = tokenizer_stage(name, self._plan.resolved.nodes)
        if source not in self._known:
            self._known[source] = self._of(source)
        return self._known[source]

    def _of(self, source: str) -> tuple[PreTrainedTokenizerBase | None, str]:
        step = next(step for step in self._plan.steps if step.node.name == source)
        if not kind_of(step.node.kind).changes_tokenizer:
            return _tokenizer(self._plan.part(step.node), self._rows.of(step.node))
        config, node, part = self._plan.part(step.node).resolved.config, step.node, self._rows.of(step.node)
        if step.state == "cached" and step.artifact is not None:
            return checkpoint.load_tokenizer(step.artifact.path, config.model), ""
        before, guess = self.after(node.parent or node.name)
        if before is None:
            return None, guess
        context = replace(_context(node, config, part, config.stages[source]), benchmarks=self._rows.passages(node))
        made = extend(context, before, whole=False)
        whole = all(found.whole for found in part.parts.get("cpt", {}).values())
        if made is None and whole and not guess:
            extend(context, before)  # says why
        tokenizer = before if made is None else made.tokenizer
        return tokenizer, guess or ("" if whole else f"with the tokenizer of {source} learned from the first rows")


def _tokenizer(plan: Plan, part: Leading) -> tuple[PreTrainedTokenizerBase | None, str]:
    """Return the tokenizer of a chain's start: of a base that is made, of a checkpoint as it will be taken, or trained.

    Besides, what is uncertain about it: where there is much text, it is trained on a part. None where the checkpoint's
    is not on this machine.
    """
    config, start = plan.resolved.config, start_of(plan.resolved)
    first = next(step for step in plan.steps if step.node.name == start.name)
    if first.state == "cached" and first.artifact is not None:
        return checkpoint.load_tokenizer(first.artifact.path, config.model), ""
    if config.model.path is not None:
        place = find_tokenizer(config.model)
        return None if place is None else tokenizer_of(place, config.model), ""
    found = plan.outlook.sizes.of("pretrain") if plan.outlook.sizes is not None else None
    small = found is not None and found.whole and found.rows * found.mean_bytes <= PRETRAIN_BYTES
    context = _context(first.node, config, plan.corpus if small else part, config.stages[first.node.name])
    return make_tokenizer(context), "" if small else "with a tokenizer of the first rows"


def _context(node: Node, config: Config, corpus: Any, settings: StageSettings) -> StageContext:
    nowhere = Path()
    return StageContext(
        node.name, node.kind, settings, config, {}, node.parent, corpus, nowhere, nowhere, nowhere, Console("quiet")
    )


class Trial:
    """The rows of one stage, as it would read them."""

    def __init__(
        self, node: Node, config: Config, part: Leading, tokenizer: PreTrainedTokenizerBase, guess: str = "",
        benchmarks: tuple[Passage, ...] = (),
    ) -> None:  # fmt: skip
        """Read them. Raises DataError where nothing usable was found, even in a part, and ContractError.

        `guess` says what is uncertain about the tokenizer.
        """
        settings = config.stages[node.name]
        if isinstance(settings, RewardedSettings):
            settings = settings.model_copy(update={"hard": None})  # pass rates come from an earlier stage
        self.node, self.settings, self.config = node, settings, config
        self._part, self._tokenizer, self._guess = part, tokenizer, guess
        self._context = replace(_context(node, config, part, settings), benchmarks=benchmarks)
        self._found = 0  # usable pairs, prompts, or paragraphs
        if isinstance(settings, RlPretrainSettings):
            self.counts = self._paragraphs(settings)
        elif isinstance(settings, PromptedSettings):
            self.counts = self._prompts()
        elif isinstance(settings, PreferenceSettings):
            self.counts = self._pairs()
        else:
            self.counts = self._rows(cast(TrainingSettings, settings))

    def _rows(self, settings: TrainingSettings) -> list[RowCount]:
        """Read texts and conversations up to the stage's budget; of replay, as many as it needs."""
        if settings.assistant_only:
            require_trainable_template(self._tokenizer)
        role, length = kind_of(self.node.kind).roles[0], settings.sequence_length
        readers, share = readers_of(self._context, self._tokenizer, role, chat_only=settings.assistant_only)
        budget = None if settings.tokens is None else round(settings.tokens * (1 - share))
        for reader in readers:
            rows = reader.tokens(
                assistant_only=settings.assistant_only, budget=budget,
                sequence_length=length if settings.packing == "isolated" else cast(int, None),
            )  # fmt: skip
            samples = list(itertools.islice(rows, SAMPLES))
            number = len(samples) + sum(1 for _ in rows)
            require_rows(range(number), reader)
            if settings.learns_answers and reader is readers[0]:
                contracts.check_stop_is_learned([row.labels for row in samples], self._tokenizer)
            packed = max(1, round(reader.num_tokens / length)) / own_share(settings)
            steps = steps_for(settings, packed, self.node.name)
            budget = round(steps * settings.batch_tokens * share)
        return [count for reader in readers for count in reader.finish(0.0)]

    def _pairs(self) -> list[RowCount]:
        read = read_preferences if isinstance(self.settings, KtoSettings) else read_pairs
        pairs, counts = read(self._context, self._tokenizer, "preference")
        self._found = len(pairs)
        return counts

    def _prompts(self) -> list[RowCount]:
        rows, counts = read_prompts(self._context, self._tokenizer)
        self._found = len(rows)
        return counts

    def _paragraphs(self, settings: RlPretrainSettings) -> list[RowCount]:
        found, counts = read_paragraphs(self._context, Asking(self._tokenizer, settings), settings.most_paragraphs)
        self._found = len(found)
        return counts

    def _require_enough(self) -> None:
        """Raise DataError where fewer pairs, prompts or paragraphs are usable than the stage needs."""
        settings, whole = self.settings, not (self._guess or any(self._sampled(self.counts)))
        if isinstance(settings, PreferenceSettings):
            place = f"Stage {self.node.name}: {origin(self._context, 'preference')}"
            require_pairs(self._found, self.config.run.processes if whole else 0, place)
        if not isinstance(settings, PromptedSettings):
            return
        role, unit = kind_of(self.node.kind).roles[0], "prompts"
        least = settings.heldout + 1 if isinstance(settings, ExpertSettings) else 1
        if isinstance(settings, RewardedSettings | RlPretrainSettings):
            least, unit = settings.watch.prompts + settings.batch, settings.unit
        if self._found < least and whole:
            losses = "; ".join(
                f"source '{count.source}': dropped {count.losses}" for count in self.counts if count.dropped
            )
            raise DataError(
                f"Stage {self.node.name} has {self._found} usable {unit} and needs {least}"
                f"{f' ({losses})' if losses else ''}. Add sources with role: {role}."
            )

    def _sampled(self, counts: Sequence[RowCount]) -> Iterator[str]:
        """Yield what was read of each source of which not all was."""
        for count in counts:
            part = self._part.parts.get(count.role, {}).get(count.source)
            if part is not None and not part.whole:
                about = "" if part.about is None else f" of about {part.about:,}"
                yield f"in the first {part.rows:,}{about} rows of source '{count.source}'"

    def doubts(self) -> list[str]:
        """Hold what was lost against the stage's limits, and what is left against its needs.

        Returns what a sample makes likely. Raises ContractError and DataError.
        """
        counts = []
        for count in self.counts:
            part = self._part.parts.get(count.role, {}).get(count.source)
            if part is None:
                counts.append(count)
                continue
            more = part.about / part.rows if part.about and part.rows and not part.whole else 1.0
            counts.append(scaled(count, part.times * more))
        limits = getattr(self.settings, "limits")  # noqa: B009  # all that read rows have them
        seen = ", ".join([*self._sampled(self.counts), *([self._guess] if self._guess else [])])
        found = judge(counts, limits, self.node.name, seen)
        self._require_enough()
        return found

    def lines(self) -> Iterator[str]:
        """Yield a line for each source that loses or changes rows."""
        for count in self.counts:
            found = self._part.parts.get(count.role, {}).get(count.source)
            about = "many" if found is None or found.about is None else f"about {found.about:,}"
            label = f"{self.node.name}, replay" if count.role == "replay" else self.node.name
            if line := describe(count, label, f"of {about} tried" if any(self._sampled([count])) else ""):
                yield line
