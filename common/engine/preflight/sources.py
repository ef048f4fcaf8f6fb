"""Whether the sources of a run suit its stages, as far as their columns tell: single answers, and an exam that asks.

Usage: `check_sources(resolved, nodes, corpus)`, from `common.engine.plan`. It reads no row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from common.config.node import Node
from common.config.resolve import EMBEDDED, Resolved
from common.config.stages import EvaluateSettings, KtoSettings
from common.config.validation import report
from common.data.corpus import Corpus
from common.errors import DataError
from common.stage import data_roles

EXAM_ROLES = ("questions_domain", "questions_general", "text_domain", "text_general")


def check_sources(resolved: Resolved, nodes: Sequence[Node], corpus: Corpus) -> None:
    """Raise DataError with all sources that some stages cannot use, and where an exam would ask nothing."""
    if resolved.config.data == EMBEDDED:
        return
    problems = list(dict.fromkeys([*_single_answers(resolved, nodes, corpus), *empty_exam(resolved, nodes, corpus)]))
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
