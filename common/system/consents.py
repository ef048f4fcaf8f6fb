"""Consents to run code that is not part of the package, in the user's own configuration folder.

Usage: `remember(Consent("mine", files))`; `given = stored("mine")`; `given[0].digest`.

A consent is one file, `allowed-code/<domain>-<digest>.json` below `$XDG_CONFIG_HOME/domain-recipes` (else below
`~/.config`): it names the files and their digests, and when it was given. To withdraw it, remove the file. Only a
regular file that this user owns and nobody else may write counts; plans, manifests and results hold none.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from common.system.outside_code import digest_of

FOLDER = "allowed-code"
LARGEST = 4 * 2**20
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Consent:
    """What a user allowed for a domain."""

    domain: str
    files: Mapping[str, str]  # name -> SHA-256
    given: str = ""  # the day

    @property
    def digest(self) -> str:
        return digest_of(self.files)

    def differences(self, files: Mapping[str, str]) -> list[str]:
        """Return what is not as it was, a word for each file."""
        names = sorted({*self.files, *files})
        kinds = {
            name: "new" if name not in self.files else "gone" if name not in files else "changed" for name in names
        }
        return [f"{name} ({kinds[name]})" for name in names if self.files.get(name) != files.get(name)]


def folder() -> Path:
    """Return where consents are, which may not exist. Raises RuntimeError where there is no home folder."""
    given = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(given) if os.path.isabs(given) else Path.home() / ".config") / "domain-recipes" / FOLDER


def stored(domain: str) -> list[Consent]:
    """Return the consents for a domain that count, the latest first."""
    found: list[tuple[float, Consent]] = []
    with contextlib.suppress(OSError, RuntimeError), _opened(folder()) as place:
        for name in os.listdir(place):
            if name.startswith(f"{domain}-") and name.endswith(".json"):
                with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                    made, text = _read(name, place)
                    facts = json.loads(text)
                    consent = Consent(facts["domain"], dict(facts["files"]), str(facts["given"]))
                    if consent.domain == domain and name == _name(consent):
                        found.append((made, consent))
    return [consent for _, consent in sorted(found, key=lambda pair: pair[0], reverse=True)]


def remember(domain: str, files: Mapping[str, str]) -> Path:
    """Store a consent, whole or not at all, and return its file. Raises OSError and RuntimeError where it cannot."""
    consent = Consent(domain, files, datetime.date.today().isoformat())
    folder().parent.parent.mkdir(parents=True, exist_ok=True)
    for path in (folder().parent, folder()):
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
    with _opened(folder()) as place:
        facts = {"domain": domain, "digest": consent.digest, "given": consent.given, "files": dict(files)}
        fresh = f".{_name(consent)}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh, dir_fd=place)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=place)
        with open(descriptor, "w", encoding="utf-8") as stream:
            json.dump(facts, stream, indent=1)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(fresh, _name(consent), src_dir_fd=place, dst_dir_fd=place)
    return folder() / _name(consent)


def _name(consent: Consent) -> str:
    return f"{consent.domain}-{consent.digest}.json"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Yield a descriptor of a folder that is this user's alone. Raises OSError for any other, and for a link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _require_own(os.fstat(descriptor), path)
        yield descriptor
    finally:
        os.close(descriptor)


def _read(name: str, place: int) -> tuple[float, str]:
    """Return when a file of the folder was written, and its text."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place)
    with open(descriptor, encoding="utf-8") as stream:
        facts = os.fstat(descriptor)
        _require_own(facts, Path(name))
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > LARGEST:
            raise ValueError(f"{name} is no consent")
        return facts.st_mtime, stream.read()


def _require_own(facts: os.stat_result, path: Path) -> None:
    if facts.st_uid != os.geteuid() or facts.st_mode & OTHERS_WRITE:
        raise PermissionError(f"{path} is not this user's alone")
