"""The page on blocks that clean rows, `docs/blocks.md`: what each does, its settings and where it is defined.

Usage: `page = blocks_page()`; `python -m common.data.schemas` writes it.

All of it comes from the blocks: their declaration, the docstring of their module, and their settings class.
"""

from __future__ import annotations

from collections.abc import Iterator

from common.config.blocks import ALL, Block, BlockSettings, blocks
from common.config.reference import Setting, module_text, settings_of, table_of

_KINDS = {"text": "texts", "messages": "conversations and pairs", "prompt": "prompts and pairs"}


def blocks_page() -> str:
    """Return the page as Markdown."""
    lines = [
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
    for name, block in sorted(blocks().items()):
        lines += ["", f"## {name}", "", *_described(block)]
    return "\n".join(lines) + "\n"


def _described(block: Block) -> Iterator[str]:
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
