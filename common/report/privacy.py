"""Removes local paths and access tokens, which say where and by whom a chain was made.

Usage: `manifest = clean(manifest)` on everything that is read, before any of it is written into a report.

It is not a general anonymiser: it does not look for names of people in the data.
"""

from __future__ import annotations

import re
from typing import Any

from common.config.json import every_text
from common.system.secrets import hide

# A path inside a sentence needs two parts, so that "and/or", "tokens/s" and "</b>" stay as they are.
PATH_INSIDE = re.compile(r"(?<![\w:/.<~])~?/(?:[\w.+@-]+/)+([\w.+@-]+)")
PATH_ALONE = re.compile(r"^(?:~|[A-Za-z]:)?[/\\][^\n]*$")


def clean(value: Any) -> Any:
    """Return a copy of a JSON-like value with local paths cut to their last part and tokens removed."""
    return every_text(value, clean_text)


def clean_text(text: str) -> str:
    """Return the text with `/home/me/data/x.jsonl` as `(local)/x.jsonl` and tokens as `***`."""
    text = text.removeprefix("file://")
    text = hide(text)
    if PATH_ALONE.match(text):
        return "(local)/" + re.split(r"[/\\]", text.rstrip("/\\"))[-1]
    return PATH_INSIDE.sub(r"(local)/\1", text)
