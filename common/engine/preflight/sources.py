"""Whether the sources of a run suit its stages, as far as their columns and names tell, and an exam asks something.

Usage: `check_sources(resolved, nodes, corpus)`, from `common.engine.plan`. It reads no row.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence

from common.config.blocks import block_of, chosen
from common.config.cleaning import PREFIX, ROLES, DataSettings, cleaned_roles
from common.config.kinds import kind_of
from common.config.methods import chosen as methods_of
from common.config.mixture import LENGTH
from common.config.node import Node
from common.config.resolve import EMBEDDED, Resolved
from common.config.stages import EvaluateSettings, KtoSettings, TrainingSettings
from common.config.validation import report
from common.data.corpus import Corpus
from common.errors import DataError, did_you_mean
from common.stage import data_roles

EXAM_ROLES = ("questions_domain", "questions_general", "text_domain", "text_general")


def check_sources(resolved: Resolved, nodes: Sequence[Node], corpus: Corpus) -> None:
    """Raise DataError with all sources that some stages cannot use, and where an exam would ask nothing."""
    always = (_mixed_samples, _named_scores)
    own = (_single_answers, _named_sources, empty_exam) if resolved.config.data != EMBEDDED else ()
    checks = (*always, *own)
    found = (check(resolved, nodes, corpus) for check in checks)
    problems = list(dict.fromkeys(itertools.chain(*found)))
    if problems:
        raise DataError(report(f"The data of '{corpus.domain_title}'", problems) if problems[1:] else problems[0])


def _single_answers(resolved: Resolved, nodes: Sequence[Node], corpus: Corpus) -> Iterator[str]:
    """Yield a line per source of single answers that a stage cannot learn from."""
    from common.training.rows.preferences import unpaired_refusal

    for node in nodes:
        settings = resolved.config.stages[node.name]
        roles = data_roles(node.kind, corpus, settings, sampled=node.sampled)
        if "preference" in roles and not isinstance(settings, KtoSettings):
            sources = {**corpus.unpaired("preference"), **corpus.unpaired("preference_heldout")}
            yield from (unpaired_refusal(node.name, source) for source, single in sources.items() if single)


def _mixed_samples(resolved: Resolved, nodes: Sequence[Node], corpus: Corpus) -> Iterator[str]:
    """Yield a line for each stage that would mix sources by settings, and whose rows another stage brings."""
    for node in nodes:
        settings = resolved.config.stages[node.name]
        if node.sampled and isinstance(settings, TrainingSettings) and settings.mixture.asks and settings.replay != 1:
            yield (
                f"{node.name}.mixture is for sources of the data, and a stage before this one makes its rows. "
                f"Leave {node.name}.mixture out."
            )


def _named_sources(resolved: Resolved, nodes: Sequence[Node], corpus: Corpus) -> Iterator[str]:
    """Yield a line for each source that a mixture or a block names and that is not there."""
    everything = [str(source["id"]) for source in corpus.sources()]
    for node in nodes:
        settings, kind = resolved.config.stages[node.name], kind_of(node.kind)
        if isinstance(settings, TrainingSettings):
            role = "replay" if settings.replay == 1 else kind.roles[0]
            own = corpus.conversations(role) if settings.mixture.sources else {}
            for name in sorted(settings.mixture.sources - own.keys()):
                what = f"is no source of the role {role}.{did_you_mean(name, own)}"
                yield f"{node.name}.mixture names '{name}', which {what}"
            for name in sorted(own.keys() - settings.mixture.sources) if settings.mixture.preset else ():
                yield (
                    f"{node.name}.mixture: the source '{name}' is in no part of the preset {settings.mixture.preset}, "
                    f"so it would never be read. Add it to one of {node.name}.mixture.parts, or disable it."
                )
        elif isinstance(settings, DataSettings):
            for block, given in chosen(settings.blocks):
                for role in sorted({*block_of(block).roles(given)} - {*cleaned_roles(node.inputs)}):
                    earlier = ROLES[: ROLES.index(settings.role)]
                    known = [one for one in earlier if PREFIX + one in resolved.config.stages]
                    yield (
                        f"{node.name}.blocks: {block} names '{role}' in against, whose rows no stage before this one "
                        f"cleans; there is {', '.join(known) or 'none'}."
                    )
                for name in sorted({*given.sources} - {*everything}):
                    hint = did_you_mean(name, everything)
                    yield f"{node.name}.blocks: {block} names the source '{name}', and there is none.{hint}"


def _named_scores(resolved: Resolved, nodes: Sequence[Node], corpus: Corpus) -> Iterator[str]:
    """Yield a line for each score that a stage goes by and no block of its role gives."""
    for node in nodes:
        settings, kind = resolved.config.stages[node.name], kind_of(node.kind)
        if isinstance(settings, TrainingSettings) and not (kind.starts and resolved.config.model.path is not None):
            role = "replay" if settings.replay == 1 else kind.roles[0]
            yield from _unknown_scores(resolved, node.name, settings, role)


def _unknown_scores(resolved: Resolved, stage: str, settings: TrainingSettings, role: str) -> Iterator[str]:
    """Yield a line for each score that a curriculum or a method goes by and no block of its role gives."""
    cleaning = resolved.config.stages.get(PREFIX + role)
    listed = chosen(cleaning.blocks) if isinstance(cleaning, DataSettings) else []
    known = [score for name, given in listed for score in block_of(name).scores(given)]
    of_lines = [score for name, given in listed for score in block_of(name).line_scores(given)]
    curriculum = settings.mixture.curriculum
    if curriculum is not None and curriculum.by not in (among := [LENGTH, *known]):
        yield (
            f"{stage}.mixture.curriculum.by={curriculum.by}: no block of the role {role} gives this "
            f"score.{did_you_mean(curriculum.by, among)}"
        )
    for method, own in methods_of(settings):
        key = f"{stage}.methods.{method.name}.by"
        for score in {*method.scores(own)} - {*known}:
            hint = did_you_mean(score, known) if known else " List one that does, below blocks."
            yield f"{key}={score}: no block of the role {role} gives this score.{hint}"
        for score in {*method.line_scores(own)} - {*of_lines}:
            yield (
                f"{key}={score}: no block of the role {role} gives this score of lines. List the block score with "
                f"{{function: {score}, lines: true}}."
            )


def empty_exam(
    resolved: Resolved, nodes: Sequence[Node], corpus: Corpus, left_out: Collection[str] = ()
) -> Iterator[str]:
    """Yield a line where an exam would have nothing to ask; `left_out` are benchmarks that could not be loaded."""
    served = any(corpus.conversations(role) for role in EXAM_ROLES)
    for node in nodes:
        settings = resolved.config.stages[node.name]
        if isinstance(settings, EvaluateSettings) and not served and not {*settings.tasks} - {*left_out}:
            yield (
                "There is nothing to ask in an exam, so that no gain and no loss could be seen. Add a source with "
                "role: eval and side: domain, or hold texts out (heldout: 0.05 in a source of texts), or name "
                "benchmarks: evaluate.tasks=[…]."
            )
            return
