"""Addresses of other machines: fetched once, noted by their content, bounded, and without secrets."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from common.data.manifest.files import remote
from common.data.manifest.files.locate import locate
from common.data.manifest.manifest import ManifestCorpus, load_manifest
from common.data.manifest.revisions import Revisions
from common.errors import DataError
from common.store import cache


@pytest.fixture(autouse=True)
def cache_folder() -> Path:
    found = cache.folder() / "remote"
    shutil.rmtree(found, ignore_errors=True)
    return found


@pytest.fixture
def bucket() -> Iterator[fsspec.AbstractFileSystem]:
    system = fsspec.filesystem("memory")
    system.pipe({"/bucket/a.txt": b"first", "/bucket/b.txt": b"second", "/bucket/c.pkl": b"x"})
    yield system
    system.rm("/bucket", recursive=True)


def corpus_of(folder: Path, path: str, noted: Path, *, fresh: bool = False) -> ManifestCorpus:
    (folder / "data.yaml").write_text(f"title: T\nsources: [{{id: s, role: cpt, licence: mit, path: '{path}'}}]\n")
    revisions = Revisions(noted, fresh=fresh)
    corpus = load_manifest(folder / "data.yaml", None, revisions=revisions)
    revisions.save()
    return corpus


def texts(corpus: ManifestCorpus) -> list[str]:
    return [row["text"] for row in corpus.rows("cpt")]


def test_what_was_read_first_is_read_again(
    tmp_path: Path, bucket: fsspec.AbstractFileSystem, cache_folder: Path
) -> None:
    address, noted = "memory://bucket/*.txt", tmp_path / "hub_revisions.json"
    corpus = corpus_of(tmp_path, address, noted)
    assert texts(corpus) == ["first", "second"]
    (tmp_path / "a.txt").write_bytes(b"first")
    (copy,), _ = locate(["a.txt"], None, tmp_path)
    assert corpus.identity(["cpt"])[0]["files"][0] == [".txt", copy.digest]
    bucket.pipe("/bucket/a.txt", b"changed")
    assert texts(corpus_of(tmp_path, address, noted)) == ["first", "second"]
    assert texts(corpus_of(tmp_path, address, noted, fresh=True)) == ["changed", "second"]
    assert texts(corpus_of(tmp_path, address, noted)) == ["changed", "second"]
    shutil.rmtree(cache_folder)
    assert texts(corpus_of(tmp_path, address, noted)) == ["changed", "second"]
    shutil.rmtree(cache_folder)
    bucket.pipe("/bucket/a.txt", b"changed again")
    with pytest.raises(DataError, match=r"memory://bucket/\*\.txt has changed since .* run\.newest_data=true"):
        corpus_of(tmp_path, address, noted)


def test_a_copy_in_the_cache_that_was_cut_is_fetched_again(
    tmp_path: Path, bucket: fsspec.AbstractFileSystem, cache_folder: Path
) -> None:
    noted = tmp_path / "hub_revisions.json"
    corpus_of(tmp_path, "memory://bucket/a.txt", noted)
    (copy,) = cache_folder.rglob("a.txt")
    copy.write_bytes(b"fi")
    assert texts(corpus_of(tmp_path, "memory://bucket/a.txt", noted)) == ["first"]


class Handler(http.server.SimpleHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012  # of all requests; emptied by the fixture

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/closed"):
            self.send_error(403)
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    Handler.asked.clear()
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "a.jsonl").write_text('{"text": "x"}\n')
    handler = functools.partial(Handler, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{found.server_address[1]}"
        found.shutdown()
        thread.join()


def test_a_web_server(tmp_path: Path, server: str) -> None:
    noted = tmp_path / "noted.json"
    assert texts(corpus_of(tmp_path, f"{server}/a.jsonl?download=1", noted)) == ["x"]
    assert "download" not in noted.read_text()
    assert texts(corpus_of(tmp_path, f"{server}/*.jsonl", noted)) == ["x"]
    asked = len(Handler.asked)
    assert texts(corpus_of(tmp_path, f"{server}/*.jsonl", noted)) == ["x"]
    assert len(Handler.asked) == asked  # not even the list
    assert texts(corpus_of(tmp_path, f"{server}/*.jsonl", noted, fresh=True)) == ["x"]
    assert Handler.asked[asked:].count("/a.jsonl") == 0  # its time says that it is the same


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{server}/b.jsonl", "no file {server}/b.jsonl. Correct the address"),
        ("{server}/*.csv", "no file matches {server}/*.csv"),
        ("{server}/closed.jsonl", "may not be read"),
        ("http://127.0.0.1:9/a.jsonl", "path http://127.0.0.1:9/a.jsonl cannot be read (Client"),
        ("memory://bucket", "memory://bucket is a folder. Give its files, such as memory://bucket/*.jsonl"),
        ("memory://bucket/c.pkl", "memory://bucket/c.pkl: format '.pkl' cannot be read. Save it as .jsonl"),
        ("zip://a.txt::memory://bucket/a.zip", "zip:// leads to no other machine"),
        ("simplecache::file:///etc/passwd", "no file"),
        ("s4://bucket/a.txt", "s4:// leads to no other machine. Known: abfs"),
        ("https://x.org/a.txt?X-Amz-Signature=abcdef0123", "path https://x.org/a.txt holds a password, token"),
        ("https://user@x.org/a.txt", "path https://x.org/a.txt holds a password"),
        ("file:///etc/passwd", "path file:///etc/passwd leaves the data folder"),
        ("file://{root}/../x.txt", "leaves the data folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_fetched(
    tmp_path: Path, server: str, bucket: fsspec.AbstractFileSystem, path: str, message: str
) -> None:
    path = path.format(server=server, root=tmp_path)
    files, problems = locate([path], None, tmp_path)
    assert (files, len(problems)) == ([], 1)
    assert message.format(server=server) in problems[0]
    assert "abcdef" not in problems[0]


def test_what_an_address_asks_for_is_left_out_of_a_message_and_its_quotes_stay() -> None:
    problem = remote._problem("s3://b/a", "s3", OSError('no endpoint at "http://h/b?list-type=2&token=abc" now'))
    assert str(problem).startswith('path s3://b/a cannot be read (OSError: no endpoint at "http://h/b" now)')


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(protocol: str) -> None:
        raise ImportError(f"Install x to access {protocol}")

    monkeypatch.setattr(remote, "_system", lacks)
    (problem,) = locate(["s3://bucket/a.txt"], None, tmp_path)[1]
    assert "s3:// is read through the package s3fs, not installed here. Run: pip install s3fs" in problem


def test_an_address_of_a_local_file(tmp_path: Path) -> None:
    (tmp_path / "a b.txt").write_text("x")
    for path in (f"file://{tmp_path}/a%20b.txt", f"file://{tmp_path}/*.txt"):
        files, problems = locate([path], None, tmp_path)
        assert ([file.name for file in files], problems) == (["a b.txt"], [])


def test_what_has_no_room(tmp_path: Path, bucket: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "MOST_BYTES", 3)
    (problem,) = locate(["memory://bucket/a.txt"], None, tmp_path)[1]
    assert "are the most that is fetched" in problem
    assert "set XDG_CACHE_HOME to a larger disk" in problem
