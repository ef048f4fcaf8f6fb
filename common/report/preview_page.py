"""Rows as they are trained, as one HTML page that needs nothing else: no script, no picture, no address.

Usage: `write_page(page_file("preview.html"), preview, "medical")`.

Every text of a row, a source or a template is escaped, and the page forbids scripts. Each line has the direction of its
own text, so that Arabic beside English moves nothing else.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from pathlib import Path

from common.errors import ConfigError, cut, visible
from common.report.views import CONTEXT, Part, Preview, Token, View, rows_of_table, shown, without_secrets
from common.store.artifacts import replacing, writing
from common.system.secrets import hide

SUFFIXES = (".html", ".htm")
LONGEST = 1000  # characters of a reason or an example
STYLE = """\
:root { color-scheme: light dark; --edge: #8884; --faint: #777; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1rem; margin: 2rem 0 .3rem; } h3 { font-size: .85rem; margin: .6rem 0 .2rem; }
p, ul { margin: .2rem 0; } .faint { color: var(--faint); font-size: .85rem; }
.part { border: 1px solid var(--edge); border-radius: 4px; padding: .4rem .6rem; margin: .3rem 0; }
.text { font: 13px/1.9 ui-monospace, monospace; overflow-wrap: anywhere; }
.text span { color: var(--faint); border-radius: 2px; }
.text .loss { background: #2da44e44; color: inherit; } .text .loss:nth-child(even) { background: #2da44e22; }
.text .context { background: #d4a72c44; } .text .control { border: 1px solid var(--edge); padding: 0 2px; }
.padding { background: repeating-linear-gradient(45deg, #8883 0 6px, transparent 6px 12px); padding: .2rem .6rem; }
table { border-collapse: collapse; margin: 1rem 0; }
td, th { padding: .15rem .7rem; border-bottom: 1px solid var(--edge); }
th { text-align: left; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
LEGEND = (
    '<p class="text"><span class="loss">loss</span> tokens that the model learns · '
    '<span class="context">context</span> an answer that the data want as context only · <span>grey</span> no loss · '
    '<span class="control">control</span> a control token. '
    "Point at a token for its number and why it carries no loss.</p>"
    '<p class="faint">· is a blank, ⏎ a line end, → a tab; \\x1b and the like are characters that cannot be seen.</p>'
)


def page_file(name: str) -> Path:
    """Return where a page goes. Raises ConfigError for what is no name of a page, so that no other file is lost."""
    path = Path(name).absolute()
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"html={name}: expected the name of a page, such as preview.html.")
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise ConfigError(f"html={name}: {what}. Name a file in a folder that is there.")
    return path


def write_page(path: Path, preview: Preview, domain: str) -> None:
    """Write the page; a reader sees the old one or the whole new one."""
    with writing(path.parent), replacing(path) as stream:
        stream.writelines(_page(preview, domain))


def _page(preview: Preview, domain: str) -> Iterable[str]:
    title = _text(f"{domain}, {preview.title}")
    yield f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
    yield f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
    yield f'<meta name="viewport" content="width=device-width"><style>\n{STYLE}</style></head><body>\n'
    yield f"<h1>{title}</h1>\n{LEGEND}\n"
    yield from (f"<p>{_text(note.rstrip('.'))}.</p>\n" for note in preview.notes)
    for view in preview.views:
        yield from _view(view)
    yield from _accounts(preview)
    yield "</body></html>\n"


def _view(view: View) -> Iterable[str]:
    yield f"<h2>{_text(view.title)}</h2>\n"
    if masked := view.masked():
        listed = ", ".join(f"{number:,} {why}" for why, number in masked.items())
        yield f'<p class="faint">Without loss: {_text(listed)}</p>\n'
    for part in view.parts:
        yield from _part(part)
    if view.padding:
        yield f'<p class="padding faint">{view.padding:,} tokens of padding</p>\n'


def _part(part: Part) -> Iterable[str]:
    yield f'<div class="part"><h3>{_text(part.title)}</h3>\n'
    yield from (f'<p class="faint">{_text(note)}</p>\n' for note in part.notes)
    yield '<div class="text"><div dir="auto">'
    for token in without_secrets(part).tokens:
        for place, piece in enumerate(shown(token.text)):
            if place:
                yield '</div>\n<div dir="auto">'
            if piece:
                yield _token(token, piece)
    yield "</div></div></div>\n"


def _token(token: Token, piece: str) -> str:
    kinds = ["loss" if token.learned else "context" if token.why == CONTEXT else "", "control" if token.special else ""]
    names = " ".join(filter(None, kinds))
    numbers = " ".join(map(str, token.ids))
    title = f"{numbers}: {token.why or 'carries loss'}"
    content = f"<bdi>{html.escape(piece)}</bdi>" if token.special else html.escape(piece)
    return f'<span{f" class={chr(34)}{names}{chr(34)}" if names else ""} title="{html.escape(title)}">{content}</span>'


def _accounts(preview: Preview) -> Iterable[str]:
    header, rows = rows_of_table(preview)
    yield f"<h2>All rows</h2>\n<table><tr>{''.join(f'<th>{_text(cell)}</th>' for cell in header)}</tr>\n"
    for row in rows:
        cells = (f"<td{' class=number' if place > 1 else ''}>{_text(cell)}</td>" for place, cell in enumerate(row))
        yield f"<tr>{''.join(cells)}</tr>\n"
    yield "</table>\n<ul>\n"
    for count in preview.counts:
        yield from (
            f"<li>changed, {_text(count.source)}: {_text(what)} ({number:,})</li>\n"
            for what, number in count.changed.items()
        )
        for reason, number in count.dropped.items():
            yield f"<li>dropped, {_text(count.source)}: {_text(reason)} ({number:,})"
            examples = preview.examples(count.source, reason)
            yield from (f'<br><bdi class="faint">{_text(text)}</bdi>' for text in examples)
            yield "</li>\n"
    yield "</ul>\n"


def _text(text: str) -> str:
    """Return what somebody else wrote as text of a page: on one line, bounded, without secrets."""
    return html.escape(cut(visible(hide(text)), LONGEST))
