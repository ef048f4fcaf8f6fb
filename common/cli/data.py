"""Print what cleaning did to the rows of a role: by source and block, their lengths, and some of those that went.

Usage: `show(artifact, console, 3, counter, general)` with the result of a stage `data-<role>`.

It reads what the stage has counted, and its sample of texts. Rows as they are trained on are `common.cli.preview`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from common.cli.output import short_path, table
from common.config.cleaning import KIND
from common.config.kinds import kind_of
from common.console import Console
from common.data.accounting import RowCount
from common.data.cleaned import FACTS, REJECTS, CleanedRows
from common.data.cleaning.accounts import LEFT, quantiles
from common.data.cleaning.amounts import CHARACTERS
from common.data.corpus import Row
from common.data.manifest.source_keys import HELDOUT_ROLES
from common.data.sizes import token_bytes
from common.data.texts import texts_of
from common.data.tokens import Fertility, SourceTokens, TokenCounter, fertility, tokens_of_sources
from common.engine.plan import TOKENIZER, Plan
from common.errors import quoted
from common.models.source import find_tokenizer
from common.store.artifacts import Artifact
from common.store.manifest import read_mapping

SHARES = (0.05, 0.5, 0.95, 1.0)
READING = "reading"
SHOWN = ("characters", "share", "used", "5%", "50%", "95%", "longest")  # of what is left of a source
EXCERPT = 160  # characters of a row that are shown
FORM_EXCERPT = 600  # of a row that a form made


def counter_of(plan: Plan) -> TokenCounter:
    """Return what counts a run's tokens: by its tokenizer where that is on this machine or on the Hub.

    Where a stage has extended the tokenizer, by that one.
    """
    sizes, model = plan.outlook.sizes, plan.resolved.config.model
    assert sizes is not None, "a plan knows its corpus"
    extended = [
        step.artifact.path / TOKENIZER
        for step in plan.steps
        if step.state == "cached" and step.artifact is not None and kind_of(step.node.kind).changes_tokenizer
    ]
    path = extended[-1] if extended else sizes.tokenizer
    if path is None and model.path is not None and (place := find_tokenizer(model)) is not None:
        path = place / TOKENIZER
    return TokenCounter(path if path is not None and path.is_file() else None, sizes.vocabulary)


def show(artifact: Artifact, console: Console, rejects: int, counter: TokenCounter, general: list[str]) -> None:
    """Print the tables of one role; `general` is text to compare the fertility of its sources with."""
    found = tokens_of_sources(artifact.path, counter)
    facts = read_mapping(artifact.path / FACTS)
    sources = [source["source"] for source in facts["sources"]]
    rows_in = sum(source["rows_in"] for source in facts["sources"])
    left = sum(_left(source) for source in facts["sources"])
    characters = sum(one["characters"] for one in facts["amounts"][LEFT].values())
    console.line(always=True)
    console.line(
        f"{facts['role']}: {_counted(len(sources), 'source')}, {rows_in:,} rows read, {left:,} left "
        f"({left / max(1, rows_in):.1%}), {characters:,} characters",
        always=True,
    )
    body = [_source_row(source, facts, characters) for source in sources]
    header = ["source", "rows", READING, *facts["blocks"], "left", *SHOWN]
    table(console, header, body, numeric=range(1, len(header)))
    _show_tokens(found, console, counter, general)
    reasons = list(_reasons(facts))
    if reasons:
        console.line(always=True)
        table(console, ["left out by", "reason", "rows", "of those it saw"], reasons, numeric=(2, 3))
    for source, findings in facts["findings"].items():
        for finding in findings:
            console.line(f"  {source}: {finding}", always=True)
    changes = _changes(facts)
    if changes:
        console.line(always=True)
        table(console, ["changed by", "what was done", "rows"], changes, numeric=(2,))
    _show_rejects(artifact, console, rejects)
    console.line(f"All of it: {short_path(artifact.path)}/{FACTS} and {REJECTS}", always=True)


def _show_tokens(
    found: Mapping[str, SourceTokens], console: Console, counter: TokenCounter, general: list[str]
) -> None:  # fmt: skip
    """Print the tokens of each source before and after cleaning, how it is cut into them, and how general text is."""
    body = [[source, str(one.before), str(one.left), *_fertility(one.fertility)] for source, one in found.items()]
    compared = None if counter.tokenizer is None else fertility(general, counter.count(general))
    body += [["general text", "", "", *_fertility(compared)]] if compared else []
    header = ["source", "tokens in", "left", "per word", "per character", "per byte"]
    console.line(always=True)
    table(console, header, body, numeric=range(1, len(header)))
    if counter.tokenizer is None:
        size = token_bytes(counter.vocabulary)
        console.line(f"~: estimated by {size:.1f} bytes a token, as there is no tokenizer.json here", always=True)
    elif not all(one.before.counted and one.left.counted for one in found.values()):
        most = f"{CHARACTERS:,} characters of the source"
        console.line(f"~: estimated from a fixed sample of at most {most}", always=True)


def _fertility(found: Fertility | None) -> list[str]:
    return ["-"] * 3 if found is None else [f"{number:.2f}" for number in found]


def show_held_out(plan: Plan, roles: Collection[str], console: Console) -> None:
    """Print how many rows of each source are kept from all training, to examine the model by."""
    sizes = plan.outlook.sizes
    assert sizes is not None, "a plan knows its corpus"
    lines = [
        f"  {count.source}: {'' if found.whole else 'at least '}{_counted(count.rows_out, 'row')} held out for the "
        "exam, beside those above"
        for role, held_out in HELDOUT_ROLES.items()
        if role in roles and (found := sizes.of(held_out)) is not None
        for count in found.counts
        if count.rows_out and count.source in plan.corpus.conversations(role)
    ]
    if lines:
        console.line(always=True)
    for line in lines:
        console.line(line, always=True)


def show_forms(plan: Plan, artifact: Artifact, console: Console) -> None:
    """Print of each source that is written in a form how many rows that made, what it left out, and the first row."""
    facts = read_mapping(artifact.path / FACTS)
    read = {count["source"]: count for count in facts["read"]}
    formed = {
        source["id"]: source["form"]
        for source in plan.corpus.sources()
        if source.get("form") and source["role"] == facts["role"] and source["id"] in read
    }
    if not formed:
        return
    missing, first = {one["source"] for one in facts["sources"] if one["rows_out"]} & formed.keys(), dict[str, Row]()
    for row in CleanedRows(artifact.path).read() if missing else ():
        first.setdefault(row["source"], row)
        if missing <= first.keys():
            break
    for source, form in formed.items():
        count = RowCount(**read[source])
        console.line(always=True)
        made = _counted(count.rows_out, "row") + (f" of {_left(read[source]):,} records" if count.joined else "")
        console.line(
            f"{source}, written as {form['name']} ({form['paper']}): {made}; left out: {count.losses}",
            always=True,
        )
        for text in texts_of(first.get(source, {})):
            for line in text[:FORM_EXCERPT].splitlines():
                console.line(f"  | {line}", always=True)
    console.line(always=True)


def show_training(plan: Plan, roles: Collection[str], console: Console) -> None:
    """Print what stages that have trained made of the rows of some roles."""
    rows = [
        [step.node.name, count.source, f"{count.rows_in:,}", f"{count.num_dropped:,}", f"{count.tokens:,}",
         f"{count.truncated:,}", f"{count.num_masked:,}", count.passes]
        for step in plan.steps
        if step.state == "cached" and step.artifact is not None and step.node.kind != KIND
        for count in (RowCount(**found) for found in step.artifact.manifest.get("rows", ()))
        if count.role in roles
    ]  # fmt: skip
    if rows:
        header = ["trained by", "source", "rows", "left out", "tokens", "truncated", "masked", "passes"]
        console.line(always=True)
        table(console, header, rows, numeric=range(2, len(header)))


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _left(count: Mapping[str, Any]) -> int:
    """Return the rows that are left of a source; of rows that are made of several records, those."""
    return int(count["rows_out"]) + int(count.get("joined", 0))


def _source_row(source: str, facts: Mapping[str, Any], total: int) -> list[str]:
    """Return the line of one source: rows in, what reading and each block left out, what is left, lengths."""
    whole = next(one for one in facts["sources"] if one["source"] == source)
    read = next(one for one in facts["read"] if one["source"] == source)
    each = RowCount(**read).records_each
    dropped = [
        round(each * sum(found.get(source, {}).get("dropped", {}).values())) for found in facts["blocks"].values()
    ]
    size, times = facts["amounts"][LEFT].get(source, {"characters": 0})["characters"], facts["times"][source]
    lengths = {int(name): number for name, number in facts["lengths"].get(source, {}).items()}
    return [
        source, f"{whole['rows_in']:,}", *(f"-{number:,}" if number else "0" for number in
        (sum(read["dropped"].values()), *dropped)), f"{_left(whole):,}", f"{size:,}",
        f"{size / max(1, total):.1%}", f"{times:g} x", *(f"~{number:,.0f}" for number in quantiles(lengths, SHARES)),
    ]  # fmt: skip


def _reasons(facts: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield the rows that went by who left them out and why, the most first."""
    read = Counter[str]()
    for source in facts["read"]:
        read.update(source["dropped"])
    rows = sum(source["rows_in"] for source in facts["read"])
    yield from ([READING, quoted(reason), f"{n:,}", f"{n / max(1, rows):.1%}"] for reason, n in read.most_common())
    for label, sources in facts["blocks"].items():
        found, seen = Counter[str](), sum(count["seen"] for count in sources.values())
        for count in sources.values():
            found.update(count["dropped"])
        yield from ([label, reason, f"{n:,}", f"{n / max(1, seen):.1%}"] for reason, n in found.most_common())


def _changes(facts: Mapping[str, Any]) -> list[list[str]]:
    found = Counter[tuple[str, str]]()
    for source in facts["read"]:
        found.update({(READING, what): number for what, number in source["changed"].items()})
    for label, sources in facts["blocks"].items():
        for count in sources.values():
            found.update({(label, what): number for what, number in count["changed"].items()})
    return [[label, what, f"{number:,}"] for (label, what), number in found.items()]


def _show_rejects(artifact: Artifact, console: Console, number: int) -> None:
    """Print the first rows that went, for each block and reason."""
    shown = Counter[tuple[str, str]]()
    with (artifact.path / REJECTS).open(encoding="utf-8") as lines:
        for line in lines:
            reject = json.loads(line)
            key = (reject["block"], reject["reason"])
            shown[key] += 1
            if shown[key] > number:
                continue
            if shown[key] == 1:
                console.line(always=True)
                console.line(f"{key[0]}: {key[1]}", always=True)
            detail = f" ({_cut(reject['detail'])})" if reject["detail"] else ""
            console.line(f"  {reject['source']}: {_cut(reject['text'])}{detail}", always=True)
    if shown:
        console.line(always=True)


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= EXCERPT else f"{text[: EXCERPT - 1]}…"
