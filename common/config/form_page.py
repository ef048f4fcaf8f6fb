"""The page on forms, `docs/forms.md`: what each makes of a record, its settings and where it is defined.

Usage: `page = forms_page()`; `python -m common.data.schemas` writes it.

All of it comes from the forms: their declaration, the docstring of their module, and their settings class.
"""

from __future__ import annotations

from collections.abc import Iterator

from common.config.forms import ROLES, Form, forms
from common.config.reference import module_text, settings_of, table_of

_COLUMNS = {
    "chat": "those of a conversation, or of a question and its answer", "preference": "those of a pair of answers",
    "parallel": "`source` and `target`, a text and its translation; `document` ends one where it changes",
}  # fmt: skip


def forms_page() -> str:
    """Return the page as Markdown."""
    lines = [
        "# Forms",
        "",
        "Written from the forms by `python -m common.data.schemas`. A source of a data manifest names one with `form`, "
        "as `form: qa`, or with its settings; see [your own data](your-own-data.md#forms).",
        "",
        "| form | what it makes | role |",
        "|---|---|---|",
        *(
            f"| [`{name}`](#{name}) | {form.phrase} | {', '.join(f'`{role}`' for role in ROLES[form.makes])} |"
            for name, form in sorted(forms().items())
        ),
    ]
    for name, form in sorted(forms().items()):
        lines += ["", f"## {name}", "", *_described(form)]
    return "\n".join(lines) + "\n"


def _described(form: Form) -> Iterator[str]:
    """Yield the lines on one form."""
    yield module_text(form.settings)
    yield ""
    yield f"Defined in: {form.paper}." + (f" Ours: {form.ours}." if form.ours else "")
    yield ""
    yield f"Columns: {'; or '.join(_COLUMNS[kind] for kind in form.takes)}."
    yield ""
    yield from table_of(settings_of(form.settings, form.name))
