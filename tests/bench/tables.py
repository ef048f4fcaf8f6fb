"""Fill the tables of the READMEs from a finished run of all domains.

Usage: `just run domain=all out=<folder>`, then `python -m tests.bench.tables <folder>`.

It replaces the table that a run of medical prints, that of `domain=all`, each domain's checkpoints and languages, and
the numbers of the sentences on probes. The prose around them is for people to read again.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from common.cli import output
from common.config.folders import names_in
from common.console import Console
from tests.conftest import REPOSITORY

Facts = Mapping[str, Any]
SENTENCES = {  # in a domain's README: what is before a number of its probes, and whose number it is
    "math": [(r"(?<=`sft` gets )[\d.]+", "sft"), (r"(?<=`merge` )[\d.]+(?= \(n)", "merge")],
    "multilingual": [(r"(?<=probe stands at )[\d.]+ \[[^]]*\]", "merge")],
}


def main(root: Path) -> None:
    views = {
        domain: root / "runs" / domain / "tiny" / "demonstration" for domain in names_in(REPOSITORY / "domains", "")
    }
    chains = {domain: json.loads((view / "summary.json").read_text(encoding="utf-8")) for domain, view in views.items()}
    readme = REPOSITORY / "README.md"
    text = put(readme.read_text(encoding="utf-8"), r"(?<=```\n)stage  .*?(?=```)", printed(chains["medical"]))
    text = put(text, r"(?<=<!-- all -->\n```\n).*?(?=```\n<!-- end of all -->)", all_domains(chains))
    readme.write_text(text, encoding="utf-8")
    for domain, view in views.items():
        path = REPOSITORY / "domains" / domain / "README.md"
        exams = {p["name"]: read_exam(view, p["name"]) for p in chains[domain]["checkpoints"]}
        filled = fill(path.read_text(encoding="utf-8"), domain, chains[domain]["checkpoints"], exams)
        path.write_text(filled, encoding="utf-8")
        print(f"  {path.relative_to(REPOSITORY)}")


def printed(summary: Facts) -> str:
    """Return a chain's table as a run prints it, without its margin."""
    shown = StringIO()
    with redirect_stdout(shown):
        output.scores(summary, Console())
    return "".join(f"{line[2:]}\n" for line in shown.getvalue().splitlines())


def all_domains(chains: Mapping[str, Facts]) -> str:
    """Return the table of `domain=all`: the domain's exam at every checkpoint, and the general one's first and last."""
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
    """Return what a checkpoint's exam found."""
    found: Facts = json.loads((view / f"exam-{name}" / "exam.json").read_text(encoding="utf-8"))
    return found


def fill(text: str, domain: str, points: list[Facts], exams: Mapping[str, Facts]) -> str:
    """Return a domain's README with the rows and numbers of a run."""
    written = "| written, exact |" in text
    text = put_rows(text, "base", [checkpoint_row(p, exams[p["name"]] if written else None) for p in points])
    if languages := exams["merge"]["languages"]:
        text = put_rows(text, "de", [language_row(name, facts) for name, facts in sorted(languages.items())])
    for pattern, name in SENTENCES.get(domain, ()):
        (probe,) = exams[name]["probes"].values()
        text = put(text, pattern, interval(probe) if r"\[" in pattern else f"{probe['score']:.2f}")
    return text


def put_rows(text: str, first: str, rows: list[str]) -> str:
    """Replace the rows of the table whose first row has that name."""
    return put(text, rf"^\| {first} \|.*?\n(?!\|)", "".join(f"{row}\n" for row in rows))


def put(text: str, pattern: str, value: str) -> str:
    """Replace what a pattern finds. Raises ValueError where it finds nothing, as marks or a sentence have changed."""
    found = re.search(pattern, text, re.DOTALL | re.MULTILINE)
    if found is None:
        raise ValueError(f"nothing is like {pattern}; say it so that this program finds it, or change the program")
    return text[: found.start()] + value + text[found.end() :]


def checkpoint_row(point: Facts, exam: Facts | None) -> str:
    """Return a checkpoint's line; `exam` where the table has a column for answers in writing."""
    exams, bits = point["exam"], point["bits_per_byte"]
    exact = [] if exam is None else [f"{exam['written']['domain']['exact']['score']:.2f}"]
    cells = [
        point["name"], interval(exams["general"]), interval(exams["domain"]), *exact, f"{bits['general']:.3f}",
        f"{bits['domain']:.3f}", f"{point['seconds']:.0f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def language_row(name: str, facts: Facts) -> str:
    """Return a language's line."""
    cells = [
        name, interval(facts["exam"]), f"{facts['in_language']['score']:.2f}", f"{facts['bits_per_byte']:.3f}",
        f"{facts['tokens_per_character']:.2f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def interval(score: Facts) -> str:
    """Return a score with its 95% interval."""
    return f"{score['score']:.2f} [{score['low']:.2f}, {score['high']:.2f}]"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
