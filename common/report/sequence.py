"""The part of a card that only a sequence of domains has: the matrix checkpoint x domain, and what was forgotten.

Usage: `found = measured(chain)`; `sequence_notes(chain)` returns headings, notes and tables, nothing for one domain.

It brings the records of the exams into the form of `common.evaluation.transfer`, which has the definitions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from common.evaluation.transfer import Estimate, Transfer, measure
from common.report.chain import Chain, Checkpoint
from common.report.markdown import MISSING, bits_range, code, interval, number, percent, plain, points_range, table
from common.store.lineage import KEY, SHARED_ROLES

DOMAIN = "domain"  # the side of a domain's own questions and texts in its exam
FIGURES = "transfer"  # name of what is computed of a chain
MATRIX_NOTE = (
    "Every checkpoint sat the exam of every domain. The first table has the bits per byte of each domain's held-out "
    "text, where lower is better, the second the share of right answers to its questions."
)
READ_NOTE = (
    "What was read before each model, and then by itself, in tokens with passes counted. Replay, and the text of the "
    "base, belong to no domain."
)
TRANSFER_NOTE = (
    "The protocol is that of Yildiz et al. (arXiv 2402.17400), whose formulas for transfer we do not know; these "
    "are ours. p(i, j) is the figure of the checkpoint after domain i on domain j, p(0, j) that of the base, and N "
    "the last domain: bits per byte, or the share of wrong answers, so that less is better. Forgetting: p(N, j) - "
    "p(j, j), above 0 where the domain was forgotten. Backward transfer: the mean of p(0, j) - p(i, j) over the "
    "domains before i; of the whole chain, over all domains, after the last. Forward transfer: the same mean over "
    "the domains after i. Above 0, transfer is a gain. The 95% intervals are from a bootstrap over the documents or "
    "questions of each domain, the same ones for all checkpoints; they are not adjusted for the number of figures, "
    "and they do not hold the chance of another seed."
)


@dataclass(frozen=True)
class Measured:
    """The checkpoints of the chain, the base first, one for each domain; and their figures where all sat all exams."""

    line: tuple[Checkpoint, ...]
    texts: Transfer | None
    answers: Transfer | None


def measured(chain: Chain) -> Measured | None:
    """Return the figures of a sequence; None for a run of one domain, or where the published model read not all.

    They are computed once for a chain.
    """
    if FIGURES not in chain.computed:
        chain.computed[FIGURES] = _measured(chain)
    found: Measured | None = chain.computed[FIGURES]
    return found


def _measured(chain: Chain) -> Measured | None:
    line = tuple(_line(chain))
    if len(chain.domains) < 2 or [c.domain for c in line[1:]] != list(chain.domains):
        return None
    texts = _transfer(line, chain.domains, _texts_of)
    answers = _transfer(line, chain.domains, _answers_of)
    return Measured(line, texts, answers)


def headline(chain: Chain) -> list[str]:
    """Return the list item of the card's first section on a sequence."""
    found = measured(chain)
    if found is None or found.texts is None:
        return []
    names, texts = list(chain.domains), found.texts
    lost = [f"`{d}` {_bits(e)}" for d, e in zip(names[:-1], texts.forgetting, strict=False)]
    return [
        f"**Sequence.** The chain read {', then '.join(f'`{name}`' for name in names)}. Bits per byte that a domain "
        f"lost from its own checkpoint to the last: {', '.join(lost)}. Mean gain over the base at the end: "
        f"{_bits(texts.backward)}."
    ]


def sequence_notes(chain: Chain) -> list[str]:
    """Return the section on a sequence of domains; nothing for a run of one domain."""
    if len(chain.domains) < 2:
        return []
    found = measured(chain)
    parts = ["### Domains in sequence", MATRIX_NOTE, _matrix(chain, _bits_cell)]
    parts += [_matrix(chain, lambda domain, checkpoint: interval(_score(checkpoint, domain)))]
    parts += [READ_NOTE, read_table(chain)]
    if found is None or (found.texts is None and found.answers is None):
        return parts
    return [
        *parts,
        TRANSFER_NOTE,
        _transfer_table(chain.domains, found),
        "![Every checkpoint on every domain](domains.png)",
    ]


def read_table(chain: Chain) -> str:
    """What every checkpoint that trained has read, and what was read before it, by its lineage."""
    trained = [c for c in chain.checkpoints if c.manifest.get(KEY) and c.manifest.get("tokens")]
    return table(trained, {
        "Model": lambda c: code(c.name),
        "Read before": lambda c: _amounts(c.manifest[KEY][:-1]),
        "Read itself": lambda c: _amounts(c.manifest[KEY][-1:]),
    }, text=3)  # fmt: skip


def _amounts(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return the tokens that stages have read, by domain."""
    found: dict[str, int] = {}
    for entry in entries:
        for source in entry["sources"]:
            owner = "general" if source["role"] in SHARED_ROLES else str(entry["domain"])
            owner = "replay" if source["role"] == "replay" else owner
            found[owner] = found.get(owner, 0) + int(source["tokens"])
    return ", ".join(f"{plain(name)} {number(tokens)}" for name, tokens in found.items()) or MISSING


def sequence_record(chain: Chain) -> dict[str, Any]:
    """Return the same for card.json."""
    found = measured(chain)
    if found is None:
        return {}
    figures = {name: asdict(one) for name, one in (("bits_per_byte", found.texts), ("wrong", found.answers)) if one}
    return {"sequence": {"domains": list(chain.domains), "checkpoints": [c.name for c in found.line], **figures}}


def matrix_rows(chain: Chain) -> list[list[str]]:
    """Return a row for each checkpoint, for the console: bits per byte and score by domain."""
    return [
        [c.name, *(f"{number(bits_of(c, d), 3)}  {percent(score['score']) if (score := _score(c, d)) else MISSING}"
                   for d in chain.domains)]
        for c in chain.checkpoints if c.exams
    ]  # fmt: skip


def bits_of(checkpoint: Checkpoint, domain: str) -> float | None:
    """Return the bits per byte of a domain's held-out text."""
    return (_scores(checkpoint, domain).get("bits_per_byte") or {}).get(DOMAIN)


def _line(chain: Chain) -> list[Checkpoint]:
    """Return the start of the chain, and the last checkpoint of each domain before the next one begins.

    What read no domain's text, such as a grown model or a merge, is none of them.
    """
    start, *others = reversed(chain.ancestors(chain.published))
    line = [start]
    for checkpoint in others:
        if not checkpoint.domain:
            continue
        if checkpoint.domain == line[-1].domain:
            line.pop()
        line.append(checkpoint)
    return line


Units = Mapping[tuple[str, ...], tuple[float, float]]  # a document or question -> numerator, denominator


def _transfer(
    line: Sequence[Checkpoint], domains: Sequence[str], units: Callable[[Checkpoint, str], Units]
) -> Transfer | None:
    """Return the figures over what all checkpoints of the chain read or answered; None where that is nothing."""
    tops, bottoms = [], []
    for domain in domains:
        found = [units(checkpoint, domain) for checkpoint in line]
        shared = [key for key in found[0] if all(key in other for other in found)]
        if not shared:
            return None
        tops.append([[other[key][0] for key in shared] for other in found])
        bottoms.append([found[0][key][1] for key in shared])
    return measure(tops, bottoms)


def _texts_of(checkpoint: Checkpoint, domain: str) -> Units:
    rows = checkpoint.exams[domain].texts if domain in checkpoint.exams else ()
    own = [row for row in rows if row["side"] == DOMAIN]
    return {(str(row["id"]), str(row["bytes"])): (float(row["bits"]), float(row["bytes"])) for row in own}


def _answers_of(checkpoint: Checkpoint, domain: str) -> Units:
    rows = checkpoint.exams[domain].records if domain in checkpoint.exams else ()
    own = [row for row in rows if row["side"] == DOMAIN]
    return {(str(row.get("task")), str(row["id"])): (float(not row["correct"]), 1.0) for row in own}


def _matrix(chain: Chain, cell: Callable[[str, Checkpoint], str]) -> str:
    columns: dict[str, Callable[[Checkpoint], str]] = {
        "Model": lambda c: f"**`{c.name}`**" if c.name == chain.published else code(c.name),
        "Read last": lambda c: plain(c.domain) if c.domain else MISSING,
    }
    columns |= {plain(domain): partial(cell, domain) for domain in chain.domains}
    return table([c for c in chain.checkpoints if c.exams], columns, text=2)


def _scores(checkpoint: Checkpoint, domain: str) -> Mapping[str, Any]:
    return checkpoint.exams[domain].scores if domain in checkpoint.exams else {}


def _score(checkpoint: Checkpoint, domain: str) -> dict[str, Any] | None:
    score: dict[str, Any] | None = (_scores(checkpoint, domain).get("exam") or {}).get(DOMAIN)
    return score


def _bits_cell(domain: str, checkpoint: Checkpoint) -> str:
    return bits_range(bits_of(checkpoint, domain), (_scores(checkpoint, domain).get("texts") or {}).get(DOMAIN))


def _transfer_table(domains: Sequence[str], found: Measured) -> str:
    """One row per figure, with bits per byte and wrong answers side by side."""
    texts, answers = (_figures(domains, one) for one in (found.texts, found.answers))
    names = list(texts or answers)
    return table(names, {
        "Figure": lambda name: name,
        "Bits per byte [95%]": lambda name: _bits(texts[name]) if texts else MISSING,
        "Wrong answers, points [95%]": lambda name: _points(answers[name]) if answers else MISSING,
    })  # fmt: skip


def _figures(domains: Sequence[str], found: Transfer | None) -> dict[str, Estimate]:
    """Return the figures by their names in the table."""
    if found is None:
        return {}
    forgotten = zip(domains[:-1], found.forgetting, strict=False)  # the last domain has had no time to be forgotten
    back = zip(domains[1:], found.backward_steps, strict=True)
    ahead = zip(domains[:-1], found.forward, strict=True)
    return {
        **{f"Forgetting of {code(domain)}": estimate for domain, estimate in forgotten},
        "Backward transfer of the whole chain": found.backward,
        **{f"Backward transfer after {code(domain)}": estimate for domain, estimate in back},
        **{f"Forward transfer after {code(domain)}": estimate for domain, estimate in ahead},
    }


def _bits(estimate: Estimate) -> str:
    ends = "" if estimate.low is None else f" [{estimate.low:+.3f}, {estimate.high:+.3f}]"
    return f"{estimate.value:+.3f}{ends}"


def _points(estimate: Estimate) -> str:
    return points_range(estimate.value, estimate.low, estimate.high)
