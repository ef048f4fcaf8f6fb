"""Make the folder of a new domain: one that already runs, with comments that teach.

Usage: `just new-domain name=chemistry`, then `just run domain=chemistry`.

The files come from `common/starter`; they are copied once and belong to the user from then on.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from common.errors import ConfigError
from common.store.artifacts import writing

STARTER = Path(__file__).parent / "starter"
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
RESERVED = ("all",)


def new_domain(name: str, repository: Path) -> list[Path]:
    """Create `domains/<name>` and return its files. Raises ConfigError for a bad name or one that is taken."""
    if not NAME.fullmatch(name) or name in RESERVED:
        raise ConfigError(
            f"name={name}: expected small letters, digits and single hyphens, beginning with a letter, such as "
            f"name=chemistry{'; all means every domain' if name in RESERVED else ''}."
        )
    folder = repository / "domains" / name
    if folder.exists():
        raise ConfigError(f"domains/{name} is there already; nothing was changed. Choose another name.")
    slots = {"{{name}}": name, "{{title}}": name.replace("-", " ").capitalize()}
    with writing(folder.parent):
        folder.parent.mkdir(exist_ok=True)
        # Made whole beside its place, so that a stop in the middle leaves no half-made domain.
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder.parent) as scratch:
            made = Path(scratch) / name
            shutil.copytree(STARTER, made)
            for path in (path for path in made.rglob("*") if path.is_file()):
                text = path.read_text(encoding="utf-8")
                for slot, value in slots.items():
                    text = text.replace(slot, value)
                path.write_text(text, encoding="utf-8")
            made.rename(folder)
    return sorted(path for path in folder.rglob("*") if path.is_file())
