"""What tables and the lists below them say, from hand-made facts."""

from __future__ import annotations

from common.report.tables import _form_of


def test_a_form_without_settings_names_none() -> None:
    form = {"name": "headline", "phrase": "a headline", "paper": "ours", "settings": {}}
    assert _form_of(form) == "written as `headline`, a headline: ours."
    assert _form_of({**form, "settings": {"mark": "#"}}).endswith('ours. Settings: mark `"#"`.')
