"""The pages on blocks and forms, `docs/blocks.md` and `docs/forms.md`: what each does, its settings, its paper.

Usage: `page = blocks_page()`; `page = forms_page()`; `python -m common.data.schemas` writes them.

All of it comes from the blocks and forms: their declaration, the docstring of their module, and their settings class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from common.config.blocks import ALL, Block, BlockSettings, blocks
from common.config.forms import ROLES, Form, forms
from common.config.reference import Setting, module_text, settings_of, table_of

T = TypeVar("T")
_KINDS = {"text": "texts", "messages": "conversations and pairs", "prompt": "prompts and pairs"}
_COLUMNS = {
    "chat": "those of a conversation, or of a question and its answer", "preference": "those of a pair of answers",
    "parallel": "`source` and `target`, a text and its translation; `document` ends one where it changes",
}  # fmt: skip


def blocks_page() -> str:
    """Return the page on blocks as Markdown."""
    head = [
        "# Blocks that clean rows",
        "",
        "Written from the blocks by `python -m common.data.schemas`. A data manifest lists them under `blocks:`, in "
        "the order in which they run; see [cleaning data](cleaning-data.md).",
        "",
        "| block | what it drops or changes | rows |",
        "|---|---|---|",
        *(f"| [`{name}`](#{name}) | {block.phrase} | {_rows(block)} |" for name, block in sorted(blocks().items())),
        "",
        "All blocks have these settings:",
        "",
        *table_of(settings_of(BlockSettings, "<block>")),
    ]
    return _page(head, blocks(), _block)


def forms_page() -> str:
    """Return the page on forms as Markdown."""
    head = [
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
    return _page(head, forms(), _form)


def _page(head: Iterable[str], found: Mapping[str, T], described: Callable[[T], Iterable[str]]) -> str:
    parts = (line for name, one in sorted(found.items()) for line in ("", f"## {name}", "", *described(one)))
    return "\n".join([*head, *parts]) + "\n"


def _block(block: Block) -> Iterator[str]:
    """Yield the lines on one block."""
    yield module_text(block.settings)
    yield ""
    if block.paper:
        yield f"Defined in: {block.paper}."
        yield ""
    passes = "It sees all rows of a role before it judges." if block.look is not None else "It judges row by row."
    yield f"Rows: {_rows(block)}. {passes}"
    yield ""
    yield from table_of(_own(block))


def _own(block: Block) -> Iterator[Setting]:
    """Yield the settings that not all blocks have."""
    shared = {f"{block.name}.{key}" for key in BlockSettings.model_fields}
    return (setting for setting in settings_of(block.settings, block.name) if setting.key not in shared)


def _rows(block: Block) -> str:
    if set(block.rows) == set(ALL):
        return "all kinds"
    return ", ".join(_KINDS.get(kind, kind) for kind in block.rows)


def _form(form: Form) -> Iterator[str]:
    """Yield the lines on one form."""
    yield module_text(form.settings)
    yield ""
    yield f"Defined in: {form.paper}." + (f" Ours: {form.ours}." if form.ours else "")
    yield ""
    yield f"Columns: {'; or '.join(_COLUMNS[kind] for kind in form.takes)}."
    yield ""
    yield from table_of(settings_of(form.settings, form.name))
