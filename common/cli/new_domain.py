"""Make the folder of a new domain: one that already runs, with comments that teach.

Usage: `just new-domain name=chemistry`, then `just run domain=chemistry`.

The files come from `common/cli/starter`; they are copied once and belong to the user from then on.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from common.config.folders import names_in
from common.config.names import LONGEST, domain_flaw
from common.errors import ConfigError
from common.store.artifacts import writing

STARTER = Path(__file__).parent / "starter"


def new_domain(name: str, parent: Path, repository: Path, *, command: str = "just") -> tuple[str, list[Path]]:
    """Create `<parent>/<name>`. Return what `domain=` takes for it, and its files.

    Raises ConfigError for a malformed name or one that is taken.
    """
    if problem := domain_flaw(name):
        raise ConfigError(f"name={name[:LONGEST]!r}: {problem}.")
    shipped = repository / "domains"
    folder = parent / name
    if folder.exists():
        shown = f"domains/{name}" if parent == shipped else folder
        raise ConfigError(f"{shown} is there already; nothing was changed. Choose another name.")
    if name in names_in(shipped, ""):
        raise ConfigError(f"name={name}: a shipped domain has that name. Choose another, such as my-{name}.")
    domain = name if parent == shipped else f"./{name}"
    title = name.replace("-", " ").capitalize()
    slots = {"{{name}}": name, "{{title}}": title, "{{domain}}": domain, "{{command}}": command}
    with writing(parent):
        parent.mkdir(exist_ok=True)
        # Written in full before it is renamed, so that a stop in the middle leaves no half-made domain.
        with tempfile.TemporaryDirectory(prefix=".new-", dir=parent) as scratch:
            made = Path(scratch) / name
            shutil.copytree(STARTER, made, ignore=shutil.ignore_patterns("__pycache__"))
            for path in (path for path in made.rglob("*") if path.is_file()):
                text = path.read_text(encoding="utf-8")
                for slot, value in slots.items():
                    text = text.replace(slot, value)
                path.write_text(text, encoding="utf-8")
            made.rename(folder)
    return domain, sorted(path for path in folder.rglob("*") if path.is_file())
