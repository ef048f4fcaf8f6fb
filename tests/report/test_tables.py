"""What tables and the lists below them say, from hand-made facts."""

from __future__ import annotations

from typing import Any

from common.data.accounting import RowCount
from common.report.chain import Chain
from common.report.stage_notes import continued_notes
from common.report.tables import _form_of, rows_table


def test_a_form_without_settings_names_none() -> None:
    form = {"name": "headline", "phrase": "a headline", "paper": "ours", "settings": {}}
    assert _form_of(form) == "written as `headline`, a headline: ours."
    assert _form_of({**form, "settings": {"mark": "#"}}).endswith('ours. Settings: mark `"#"`.')


def test_rows_that_are_read_again_and_what_was_passed_over_are_on_the_card() -> None:
    rows = [RowCount("web", "cpt", tokens=10).as_dict(), RowCount("web", "cpt", tokens=30, again=True).as_dict()]
    facts = {"cpt": {"passed": 4130, "again": 0.75}, "replay": {"passed": 1024, "again": 0.0}}
    manifests: dict[str, dict[str, Any]] = {
        "trunk": {"kind": "cpt", "rows": rows[:1], "metrics": {}},
        "decay": {"kind": "cpt", "rows": rows, "metrics": {"continued": facts}},
    }
    chain = Chain((), "decay", manifests)
    lines = rows_table(chain).splitlines()[2:]
    assert [line.split("|")[2].strip() for line in lines] == ["`web`", "`web`", "`web`, read again"]
    assert continued_notes(chain) == [
        "`decay` went on behind what the stages before it had read: 4,130 tokens of cpt (75.0% of its own budget is "
        "read again) and 1,024 tokens of replay."
    ]
