"""Files that a path names by an address (`s3://bucket/*.jsonl`, `https://…`): fetched once into a cache, then local.

Usage: `files = fetch("s3://bucket/texts/*.jsonl.gz", revisions.commit)`.

What was fetched first is noted, as a commit of the Hub is: a digest over names and contents. Later runs read the same
content, without asking, until `run.newest_data=true`; where the cache was emptied meanwhile, it is fetched again and
must be the same. Access is what fsspec's own packages find in the environment: no credential is part of an address.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from common.data.manifest.files.source_file import SourceFile
from common.errors import DataError, did_you_mean, first_line, quoted
from common.store import cache
from common.store.artifacts import write_json
from common.system.limited import Exceeded, growing, watched
from common.system.secrets import TELLING, hide

_log = logging.getLogger(__name__)
ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://", re.I)
# Those that lead to another machine. Others of fsspec read this one (file, local, dir, zip, tar, reference, cached …).
PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs",
    "adl": "adlfs", "oci": "ocifs", "oss": "ossfs", "http": "aiohttp", "https": "aiohttp", "ftp": "",
    "sftp": "paramiko", "ssh": "paramiko", "hdfs": "pyarrow", "webhdfs": "requests",
    "hf": "huggingface_hub", "memory": "",
}  # fmt: skip
ANSWER_SECONDS = 60.0
MOST_BYTES = 2**38  # of the files that one path means
SPARE = 2**30  # bytes of the disk that are left free
CHUNK = 2**20
# What servers say of a file's content, the surest first; and then of its time.
_TAGS = (
    "sha256", "md5Hash", "md5", "content_md5", "Content-MD5", "ETag", "etag", "e_tag", "crc32c", "generation",
    "blob_id", "LastModified", "Last-Modified", "last_modified", "updated", "mtime", "modified", "created",
)  # fmt: skip
_SIGNED = re.compile(r"^(?:x-amz-|x-goog-|x-ms-|sig$|sv$|se$|signature|expires$|awsaccesskeyid|policy$|auth)", re.I)
Note = Callable[[str, Callable[[], str] | None], str | None]  # `Revisions.commit`


class Fetched(NamedTuple):
    """One file in the cache."""

    name: str  # its address
    path: str  # below the cache folder of its pattern
    size: int
    digest: str
    tag: str  # what the server says of its content; empty where it says nothing


def is_address(path: str) -> bool:
    """Whether a path names a file by an address, on this machine or another."""
    return ADDRESS.match(path) is not None


def below(address: str, root: Path) -> str:
    """Return what an address of a local file (`file:///data/a.jsonl`) means below a folder. Raises DataError."""
    path = Path(unquote(address.partition("://")[2]))
    place = Path(*path.parts) if path.is_absolute() else root.resolve() / path
    if "::" in address or ".." in path.parts or not place.is_relative_to(root.resolve()):
        raise DataError(f"path {address} leaves the data folder {root}. Give a path below it, as texts/*.txt")
    return place.relative_to(root.resolve()).as_posix()


def fetch(address: str, note: Note, tell: Callable[[str], None] = _log.info) -> list[SourceFile]:
    """Return the files that an address means, in a stable order, fetched where they are not in the cache yet.

    Raises DataError: what may not be read, a missing package, no such file, no access, and a change since it was noted.
    """
    import filelock

    protocol, name = _check(address), _bare(address)
    digest = hashlib.sha256(address.encode()).hexdigest()[:20]
    home = cache.folder() / "remote" / digest
    key = name if address.endswith(name) else f"{name}?{digest}"
    known = note(key, None)
    if known is not None and (files := _read(home, known)):
        return _as_files(home, files)
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"path {name}: {home} cannot be written: {error.strerror}. Set XDG_CACHE_HOME") from None
    with filelock.FileLock(home / ".lock"):
        files = _fetched(address, protocol, home, tell)
    found = _identity(files)
    if known is not None and known != found:
        raise DataError(
            f"path {name} has changed since its content was noted ({known[:12]}, now {found[:12]}), and the copy of "
            "then is no longer in the cache. Pass run.newest_data=true to take what is there now."
        )
    write_json(home / f"{found}.json", {"files": [list(file) for file in files]})
    note(key, lambda: found)
    return _as_files(home, files)


def _check(address: str) -> str:
    """Return the protocol of an address. Raises DataError for one that may not be read, or holds a secret."""
    found = ADDRESS.match(address)
    assert found is not None, "the caller looked"
    protocol, name = found[1].lower(), _bare(address)
    if protocol not in PACKAGES or "::" in address:
        near = did_you_mean(protocol, PACKAGES)
        raise DataError(f"path {quoted(name)} cannot be read: {protocol}:// leads to no other machine.{near}")
    parts = urlsplit(address)
    signed = [key for key, _ in parse_qsl(parts.query) if TELLING.search(key) or _SIGNED.match(key)]
    if hide(address) != address or "@" in parts.netloc or signed:
        raise DataError(
            f"path {name} holds a password, token or signature, and results keep what a manifest says. Take it out, "
            f"and give access as {PACKAGES[protocol] or 'the server'} reads it from the environment"
        )
    return protocol


def _bare(address: str) -> str:
    """Return an address without what may be secret."""
    protocol, _, rest = address.partition("://")
    return f"{protocol}://{rest.partition('?')[0].rpartition('@')[2]}" if protocol.startswith("http") else hide(address)


def _fetched(address: str, protocol: str, home: Path, tell: Callable[[str], None]) -> list[Fetched]:
    """List what an address means, and fetch what the cache has not."""
    name = _bare(address)
    try:
        system = _system(protocol)
        listed = watched(lambda: _list(system, address, protocol), ANSWER_SECONDS)
        if not listed:
            raise DataError(f"no file matches {name}. Correct the address")
        _check_room(name, listed, home)
        before = {(file.name, file.size, file.tag): file for file in _noted(home) if file.tag}
        files = []
        for number, (path, facts) in enumerate(sorted(listed.items()), start=1):
            place, size, tag = _name(path, protocol), facts.get("size"), _tag(facts)
            kept = before.get((place, size, tag)) if isinstance(size, int) else None
            if kept is not None and _is_whole(home, kept):
                files.append(kept)
                continue
            tell(f"fetching {place}, {number} of {len(listed)} files of {name}")
            files.append(_download(system, path, place, tag, home))
        return files
    except DataError:
        raise
    except ImportError as error:
        package = PACKAGES[protocol]
        raise DataError(
            f"path {name}: {protocol}:// is read through the package {package}, not installed here. "
            f"Run: pip install {package}"
        ) from error
    except Exception as error:  # each protocol has errors of its own; the message keeps the cause
        raise _problem(name, protocol, error) from error


def _problem(name: str, protocol: str, error: Exception) -> DataError:
    while isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # aiohttp's: fsspec calls whatever went wrong a missing file
    cause = f"it did not answer within {error}" if isinstance(error, Exceeded) else f"{type(error).__name__}: {error}"
    cause = hide(first_line(ValueError(re.sub(r"\?[^\s\"']+", "", cause))))
    if isinstance(error, FileNotFoundError) or getattr(error, "status", None) == 404:
        return DataError(f"no file {name}. Correct the address")
    access = isinstance(error, PermissionError) or re.search(r"credential|forbidden|denied|401|403", cause, re.I)
    if access:
        package = PACKAGES[protocol] or "its server"
        return DataError(
            f"path {name} may not be read ({cause}). Give access as {package} reads it from the environment"
        )
    return DataError(f"path {name} cannot be read ({cause}). Check the address and the network")


def _system(protocol: str) -> Any:
    import fsspec

    if protocol in ("http", "https"):
        import aiohttp

        limits = {"timeout": aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60), "trust_env": True}
        return fsspec.filesystem(protocol, client_kwargs=limits)
    return fsspec.filesystem(protocol)


def _list(system: Any, address: str, protocol: str) -> dict[str, dict[str, Any]]:
    """Return facts by path of the files that an address means."""
    path = system._strip_protocol(address)
    signs = "*[" if protocol.startswith("http") else "*?["  # what follows ? is a query there
    if not any(sign in path for sign in signs):
        facts = dict(system.info(path))
        if facts.get("type") == "directory":
            raise DataError(
                f"{_bare(address)} is a folder. Give its files, such as {_bare(address).rstrip('/')}/*.jsonl"
            )
        return {path: facts}
    found = system.glob(path, detail=True)
    names = found.items() if isinstance(found, Mapping) else ()
    return {
        str(name): {**facts, **(system.info(name) if protocol.startswith("http") else {})}
        for name, facts in names
        if facts.get("type") != "directory" and not Path(_base(str(name))).name.startswith(".")
    }


def _check_room(name: str, listed: Mapping[str, Mapping[str, Any]], home: Path) -> None:
    sizes = [size for facts in listed.values() if isinstance(size := facts.get("size"), int)]
    free = shutil.disk_usage(home).free - SPARE
    most = min(MOST_BYTES, free)
    if sum(sizes) > most:
        why = "are left on the disk of the cache" if most == free else "are the most that is fetched"
        raise DataError(
            f"path {name} means {sum(sizes) / 2**30:.1f} GiB, and {max(0, most) / 2**30:.1f} GiB {why} ({home}). Name "
            "fewer files, or set XDG_CACHE_HOME to a larger disk"
        )


def _tag(facts: Mapping[str, Any]) -> str:
    return next((f"{key}={facts[key]}" for key in _TAGS if facts.get(key) is not None), "")


def _name(path: str, protocol: str) -> str:
    return _bare(path if is_address(path) else f"{protocol}://{path.lstrip('/')}")


def _base(path: str) -> str:
    return path.partition("?")[0].rstrip("/").rpartition("/")[2]


def _download(system: Any, path: str, name: str, tag: str, home: Path) -> Fetched:
    """Fetch one file, whole or not at all, giving up one that stands still. Raises what the protocol does."""
    base = re.sub(r"[^\w.-]", "_", _base(path))[-80:].lstrip(".") or "file"
    partial = home / f".{hashlib.sha256(path.encode()).hexdigest()[:16]}.part"
    digest, count = hashlib.sha256(), [0]

    def copy() -> None:
        with system.open(path, "rb") as source, partial.open("wb") as target:
            while data := source.read(CHUNK):
                digest.update(data)
                target.write(data)
                count[0] += len(data)
                if count[0] > MOST_BYTES:
                    raise DataError(f"path {name} has more than {MOST_BYTES // 2**30} GiB. Name fewer files")

    try:
        growing(copy, lambda: count[0])
        place = Path(digest.hexdigest()[:32]) / base
        (home / place).parent.mkdir(exist_ok=True)
        partial.replace(home / place)
    finally:
        partial.unlink(missing_ok=True)
    return Fetched(name, place.as_posix(), count[0], digest.hexdigest(), tag)


def _identity(files: list[Fetched]) -> str:
    """Return what identifies the content of some files: 40 digits, as of a commit."""
    facts = json.dumps([[file.name, file.digest] for file in files])
    return hashlib.sha256(facts.encode()).hexdigest()[:40]


def _noted(home: Path) -> list[Fetched]:
    """Return all files that were ever fetched for an address and may be in the cache."""
    return [file for listing in sorted(home.glob("*.json")) for file in _listing(home, listing.stem)]


def _listing(home: Path, identity: str) -> list[Fetched]:
    try:
        given = json.loads((home / f"{identity}.json").read_bytes())["files"]
        return [Fetched(str(name), str(path), int(size), str(sha), str(tag)) for name, path, size, sha, tag in given]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _read(home: Path, identity: str) -> list[Fetched]:
    """Return the files of a content that was noted, where the cache still has all of them whole."""
    files = _listing(home, identity)
    whole = bool(files) and _identity(files) == identity and all(_is_whole(home, file) for file in files)
    return files if whole else []


def _is_whole(home: Path, file: Fetched) -> bool:
    path = home / file.path
    return path.is_file() and path.resolve().is_relative_to(home.resolve()) and cache.known_digest(path) == file.digest


def _as_files(home: Path, files: list[Fetched]) -> list[SourceFile]:
    return [SourceFile(home / file.path, file.name) for file in files]
