"""Fill the tables of the READMEs from a finished run of all domains.

Usage: `just run domain=all out=<folder>`, then `python -m tests.bench.tables <folder>`.

It replaces what stands between the marks: the table that a run of medical prints, that of `domain=all`, each domain's
checkpoints, languages, and the numbers of the two sentences on probes. Prose around them is for people to read again.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from common import show
from common.console import Console
from common.domain_file import names_in
from tests.conftest import REPOSITORY

Facts = Mapping[str, Any]
NUMBERS = re.compile(r"(<!-- numbers: filled from a run -->\n)(.*?)(<!-- end of numbers -->)", re.DOTALL)


def main(root: Path) -> None:
    views = {domain: root / "runs" / domain / "tiny" for domain in names_in(REPOSITORY / "domains", "")}
    chains = {domain: json.loads((view / "summary.json").read_text(encoding="utf-8")) for domain, view in views.items()}
    readme = REPOSITORY / "README.md"
    text = readme.read_text(encoding="utf-8")
    text = re.sub(r"(?<=```\n)checkpoint  .*?(?=```)", lambda _: printed(chains["medical"]), text, flags=re.DOTALL)
    text = re.sub(
        r"(<!-- all -->\n```\n).*?(```\n<!-- end of all -->)", lambda m: m[1] + all_domains(chains) + m[2], text,
        flags=re.DOTALL,
    )  # fmt: skip
    readme.write_text(text, encoding="utf-8")
    for domain, view in views.items():
        path = REPOSITORY / "domains" / domain / "README.md"
        exams = {p["name"]: read_exam(view, p["name"]) for p in chains[domain]["checkpoints"]}
        fill = section(chains[domain]["checkpoints"], exams)
        path.write_text(NUMBERS.sub(fill, path.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"  {path.relative_to(REPOSITORY)}")


def printed(summary: Facts) -> str:
    """Return a chain's table as a run prints it, without its margin."""
    shown = StringIO()
    with redirect_stdout(shown):
        show.scores(summary, Console())
    return "".join(f"{line[2:]}\n" for line in shown.getvalue().splitlines())


def all_domains(chains: Mapping[str, Facts]) -> str:
    names = [point["name"] for point in next(iter(chains.values()))["checkpoints"]]
    rows = [["domain exam", *names, "general exam"]]
    for domain, chain in chains.items():
        points = chain["checkpoints"]
        general = [f"{points[place]['exam']['general']['score']:.2f}" for place in (0, -1)]
        rows.append([domain, *(f"{p['exam']['domain']['score']:.2f}" for p in points), " -> ".join(general)])
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = [
        "  ".join(
            c.rjust(w) if 0 < i <= len(names) else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def read_exam(view: Path, name: str) -> Facts:
    found: Facts = json.loads((view / f"exam-{name}" / "exam.json").read_text(encoding="utf-8"))
    return found


def section(points: list[Facts], exams: Mapping[str, Facts]) -> Callable[[re.Match[str]], str]:
    """Return what stands between a domain's marks, with the rows and numbers of a run."""

    def fill(found: re.Match[str]) -> str:
        body = found[2]
        written = "| written, exact |" in body
        body = _rows(body, "base", [checkpoint_row(p, exams[p["name"]] if written else None) for p in points])
        languages = exams["merge"]["languages"]
        if languages:
            body = _rows(body, "de", [language_row(name, facts) for name, facts in sorted(languages.items())])
        probes = {name: next(iter(exam["probes"].values()), None) for name, exam in exams.items()}
        taught, ended = probes["sft"], probes["merge"]
        if taught is not None and ended is not None:
            body = _put(body, r"(?<=`sft` gets )[\d.]+", f"{taught['score']:.2f}")
            body = _put(body, r"(?<=`merge` )[\d.]+(?= \(n)", f"{ended['score']:.2f}")
            body = _put(body, r"(?<=probe stands at )[\d.]+ \[.*?\]", interval(ended))
        return found[1] + body + found[3]

    return fill


def _put(body: str, pattern: str, value: str) -> str:
    return re.sub(pattern, value, body)


def _rows(body: str, first: str, rows: list[str]) -> str:
    """Replace the rows of the table whose first row has that name."""
    return re.sub(rf"(?m)^\| {first} \|.*\n(?:\|.*\n)*", lambda _: "".join(f"{row}\n" for row in rows), body, count=1)


def checkpoint_row(point: Facts, exam: Facts | None) -> str:
    exams, bits = point["exam"], point["bits_per_byte"]
    exact = [] if exam is None else [f"{exam['written']['domain']['exact']['score']:.2f}"]
    cells = [
        point["name"], interval(exams["general"]), interval(exams["domain"]), *exact, f"{bits['general']:.3f}",
        f"{bits['domain']:.3f}", f"{point['seconds']:.0f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def language_row(name: str, facts: Facts) -> str:
    cells = [
        name, interval(facts["exam"]), f"{facts['in_language']['score']:.2f}", f"{facts['bits_per_byte']:.3f}",
        f"{facts['tokens_per_character']:.2f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def interval(score: Facts) -> str:
    return f"{score['score']:.2f} [{score['low']:.2f}, {score['high']:.2f}]"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
