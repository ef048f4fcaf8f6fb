"""Changed results: every kind of change is found, at a glance where that is free, and by reading where it is not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from common.cli.main import main
from common.store import cache
from common.store.artifacts import Artifact, Store, digest_file, write_json
from common.store.cache import remember
from common.store.manifest import MANIFEST
from common.store.runs import RunFolder
from common.store.verify import changed, changed_file, seen_changed, size_of_all, verify
from tests.store.results import commit

LARGE = "w" * (2 * cache.LARGE)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(autouse=True)
def _own_digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "folder", lambda: tmp_path / "cache")
    cache._large_digest.cache_clear()


def flip(path: Path, place: int = 3) -> None:
    """Change one byte, and keep the size and the time of the last change."""
    facts = path.stat()
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    with path.open("r+b") as stream:
        stream.write(content)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def test_what_is_as_it_was_is_not_changed(store: Store) -> None:
    made = commit(store, "sft", "weights")
    assert changed(made) is None
    assert seen_changed(made) is None


@pytest.mark.parametrize("look", [changed, seen_changed])
def test_flipped_bytes_of_a_small_file_are_found(store: Store, look: Callable[[Artifact], str | None]) -> None:
    made = commit(store, "sft", "weights")
    before = made.manifest["files"]["model.safetensors"]["sha256"][:12]
    flip(made.path / "model.safetensors")
    now = digest_file(made.path / "model.safetensors")[:12]
    assert look(made) == f"model.safetensors was changed: its sha256 is {now}, and {before} was written"


def test_a_large_file_is_found_at_a_glance_where_it_was_known(store: Store) -> None:
    made = commit(store, "sft", LARGE)
    weights = made.path / "model.safetensors"
    flip(weights)
    assert seen_changed(made) is None  # it was never digested here, and is not read for a glance
    assert "model.safetensors was changed" in str(changed(made))
    flip(weights)
    remember({weights: digest_file(weights)})
    assert seen_changed(made) is None
    flip(weights)
    assert "model.safetensors was changed" in str(seen_changed(made))


def test_what_was_remembered_is_not_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = commit(store, "sft", LARGE)
    remember({made.path / name: facts["sha256"] for name, facts in made.manifest["files"].items()})
    read: list[str] = []

    def watched(path: Path) -> str:
        read.append(path.name)
        return digest_file(path)

    monkeypatch.setattr(cache, "digest_file", watched)
    assert changed(made) is None
    assert read == ["log.jsonl"]


def test_a_manifest_that_was_edited_does_not_agree_with_itself(store: Store) -> None:
    made = commit(store, "sft", "weights")
    flip(made.path / "model.safetensors")
    manifest = json.loads((made.path / MANIFEST).read_text("utf-8"))
    manifest["files"]["model.safetensors"]["sha256"] = digest_file(made.path / "model.safetensors")
    assert changed(Artifact(made.path, manifest)) == "manifest.json does not agree with itself"


def test_a_file_that_is_missing_or_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert changed_file(tmp_path, {"a": "0"}) == "a is missing"
    assert (
        changed_file(tmp_path, {"folder": "0"}, digest_file)
        == "folder cannot be read (it is a folder, not a regular file)"
    )


def test_making_it_again_puts_changed_bytes_right(store: Store) -> None:
    for name in ("model.safetensors", "log.jsonl"):
        made = commit(store, "sft", "weights")
        flip(made.path / name)
        again = commit(store, "sft", "weights")
        assert again.path == made.path
        assert again.digest == made.digest
        assert changed(again) is None
        assert [path.name for path in store.artifacts.iterdir() if not path.name.startswith(".")] == [made.path.name]


def version(store: Store, name: str, text: str, model: str = "m") -> Path:
    folder = store.models / "medical" / name
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(text, encoding="utf-8")
    record = {
        "domain": "medical",
        "model": model,
        "card": "c",
        "files": {"README.md": digest_file(folder / "README.md")},
    }
    (folder / "publish.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def test_the_command_reads_everything_and_names_what_differs(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder(store.runs, "medical", "tiny", "mine")
    for stage in ("base", "cpt", "sft", "dpo"):
        run.link(stage, commit(store, stage, "weights"))
    commit(store, "kto", "weights")
    published = version(store, "v1", "card")
    (store.artifacts / "notes").mkdir()
    out = f"out={store.root}"
    assert main(["verify", out]) == 0
    read = f"{size_of_all(store) / 1e6:,.1f} MB read"
    assert capsys.readouterr().out == f"6 results and published versions, {read}, 0 different\n"

    flip((run.path / "base" / "log.jsonl").resolve())
    (run.path / "cpt" / MANIFEST).write_text("{", encoding="utf-8")
    shutil.copy((run.path / "base" / MANIFEST), (run.path / "sft" / MANIFEST))
    (run.path / "dpo" / "model.safetensors").unlink()
    (unused,) = store.artifacts.glob("kto-*")
    flip(unused / "model.safetensors")
    flip(published / "README.md")
    assert main(["verify", out]) == 1
    shown = capsys.readouterr()
    assert "6 of 6 results and published versions are not what was made; see above." in shown.err
    lines = shown.out.splitlines()
    again = f"Make it again with `just rerun domain=medical profile=tiny stage={{}} name=mine out={store.root}`."
    expected = {
        "base": f": log.jsonl was changed: its sha256 is .*{again.format('base')}",
        "cpt": f": no valid manifest.json. {again.format('cpt')}",
        "sft": f": its manifest.json is of base-.*{again.format('sft')}",
        "dpo": f": model.safetensors is missing. {again.format('dpo')}",
        "kto": ": model.safetensors was changed: .*No run refers to it; `just gc` removes it.",
        "v1": f": README.md was changed: .*`just rerun domain=medical stage=publish {out}` publishes it again.",
    }
    for name, text in expected.items():
        (line,) = (line for line in lines if f"/{name}-" in line or f"/{name}:" in line)
        head, _, tail = text.partition(".*")
        assert head in line
        assert line.endswith(tail)


def test_a_version_of_several_domains_is_published_again_by_its_run(store: Store) -> None:
    folder = version(store, "v1", "card")
    record = json.loads((folder / "publish.json").read_text(encoding="utf-8")) | {"run": "tiny/sequence"}
    write_json(folder / "publish.json", record)
    run = RunFolder(store.runs, "medical", "tiny", "sequence")
    run.path.mkdir(parents=True)
    write_json(run.plan, {"members": {"medical": {}, "mine": {"domain_folder": "/somewhere/mine"}}})
    flip(folder / "README.md")
    (found,) = verify(store, lambda size: None)
    assert found is not None
    assert found.advice.startswith(
        "`just rerun domains=medical,/somewhere/mine profile=tiny stage=publish name=sequence "
    )


@pytest.mark.parametrize("end", ["replaced", "removed"])
def test_a_result_that_goes_while_it_is_read_is_no_difference(store: Store, end: str) -> None:
    made = commit(store, "sft", "weights", recipe=1)

    def meanwhile(size: int) -> None:
        if not done:
            done.append(size)
            if end == "replaced":
                commit(store, "sft", "others", recipe=1)
            else:
                shutil.rmtree(made.path)

    done: list[int] = []
    assert list(verify(store, meanwhile)) == [None]


def test_a_changed_version_counts_until_the_same_is_there_whole(store: Store) -> None:
    flip(version(store, "v1", "card") / "README.md")
    (found,) = verify(store, lambda size: None)
    assert found is not None
    assert found.matters
    version(store, "v2", "another", model="other")
    version(store, "v3", "card")
    *_, found = verify(store, lambda size: None)
    assert found is not None
    assert not found.matters
    assert found.advice == "v3 is the same and whole."
