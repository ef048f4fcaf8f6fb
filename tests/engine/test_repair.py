"""A result that was changed is reported before it is read, with the command that repairs it, and that command does."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from common.cli.main import main
from common.config.resolve import resolve
from common.console import Console
from common.engine.plan import make_plan
from common.engine.repair import require_inputs
from common.engine.run import execute, run_stage
from common.errors import DataError, StoreError
from common.store import cache
from common.store.manifest import MANIFEST
from common.store.runs import RunFolder
from tests.conftest import QUICK, REPOSITORY, linked
from tests.store.test_verify import flip

pytestmark = pytest.mark.slow

WORDS = [f"{key}={value}" for key, value in QUICK.items()]


@pytest.fixture(autouse=True)
def _remembered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if files had been changed some time ago: see `common.store.cache`."""
    monkeypatch.setattr(cache, "SETTLED", -(10**12))


def weights(root: Path, stage: str) -> Path:
    found = linked(root, stage)
    assert found is not None
    return found.path / "model.safetensors"


def command_in(text: str) -> list[str]:
    found = re.search(r"`just (rerun [^`]*)`", text)
    assert found is not None, text
    return shlex.split(found[1])


def test_a_stage_does_not_continue_from_changed_weights(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here knows their digest, so they are first read when the stage is about to load them."""
    path = weights(copy, "sft")
    whole = path.read_bytes()
    flip(path, 5000)
    monkeypatch.setattr(cache, "folder", lambda: copy / "cache")
    words = {"domain": "medical", "out": str(copy), **QUICK}
    told = rf"The result of stage sft is damaged\. sft-\w+: model.safetensors was changed: .*`just rerun .*out={copy}`"
    with pytest.raises(StoreError, match=told) as caught:
        execute(resolve({**words, "dpo.train.beta": "0.3"}, REPOSITORY), Console("quiet"))
    # Now its digest is known, and a glance is enough.
    step = next(step for step in make_plan(resolve(words, REPOSITORY)).steps if step.node.name == "sft")
    assert step.state == "missing"
    assert step.reasons[0].startswith("damaged: model.safetensors was changed")
    with pytest.raises(StoreError, match=r"The result of stage sft is damaged\."):
        run_stage(resolve(words, REPOSITORY), "dpo", Console("quiet"), forced=True)
    assert main([*command_in(str(caught.value)), "run.verbosity=quiet"]) == 0
    assert path.read_bytes() == whole
    assert main(["verify", f"out={copy}"]) == 0


def test_every_command_tells_and_a_run_repairs(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, given = weights(copy, "merge"), ["domain=medical", f"out={copy}", *WORDS]
    whole = chosen.read_bytes()
    manifest = chosen.with_name(MANIFEST)
    kept = manifest.read_bytes()
    for harm in (lambda: flip(chosen, 5000), lambda: manifest.write_text("{"), lambda: chosen.unlink()):
        harm()
        if chosen.is_file():
            cache.known_digest(chosen)
        assert main(["verify", f"out={copy}"]) == 1
        told = capsys.readouterr().out
        assert "stage=merge" in " ".join(command_in(told))
        for command in (["chat", "prompt=x", "stage=merge"], ["publish"]):
            assert main([*command, *given]) == 1
            error = capsys.readouterr().err
            assert "The result of stage merge is damaged." in error
            assert command_in(error) == command_in(told)
        assert main(["plan", *given]) == 0
        assert "damaged: " in capsys.readouterr().out
        chosen.write_bytes(whole)
        manifest.write_bytes(kept)
    flip(chosen, 5000)
    assert main(["verify", f"out={copy}"]) == 1
    cache.known_digest(chosen)
    capsys.readouterr()
    assert main(["run", *given]) == 0
    assert re.search(r"merge: damaged: model.safetensors was changed: .*; it is made again", capsys.readouterr().out)
    assert chosen.read_bytes() == whole
    assert main(["verify", f"out={copy}"]) == 0


def test_a_changed_published_model_is_told_and_published_again_on_request(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published, given = copy / "models" / "medical" / "v1" / "README.md", ["domain=medical", f"out={copy}", *WORDS]
    flip(published)
    edited = published.read_bytes()
    assert main(["verify", f"out={copy}"]) == 1
    capsys.readouterr()
    assert main(["run", *given]) == 0
    told = capsys.readouterr().out
    assert "publish: damaged: models/medical/v1: README.md was changed: " in told
    assert published.read_bytes() == edited
    assert main(command_in(told)) == 0
    assert published.read_bytes() == edited  # it may be somebody's own change
    assert (copy / "models" / "medical" / "latest").readlink() == Path("v2")
    capsys.readouterr()
    assert main(["verify", f"out={copy}"]) == 0
    assert "v2 is the same and whole." in capsys.readouterr().out
    assert main(["run", *given]) == 0
    assert "damaged" not in capsys.readouterr().out


def test_an_input_that_is_not_made_yet_is_no_damage(tmp_path: Path) -> None:
    resolved = resolve({"domain": "medical", "out": str(tmp_path), **QUICK}, REPOSITORY)
    plan = make_plan(resolved)
    node = next(step.node for step in plan.steps if step.node.name == "dpo")
    with pytest.raises(DataError, match="Stage dpo needs sft, which is not made yet; run stage sft first"):
        require_inputs(plan, node)


def test_the_command_names_a_domain_from_elsewhere_by_its_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs", "mine", "tiny", "full")
    folder.path.mkdir(parents=True)
    folder.plan.write_text(json.dumps({"domain_folder": str(tmp_path / "my domains" / "mine")}), encoding="utf-8")
    words = shlex.split(folder.rerun("sft").removeprefix("just rerun "))
    assert words == [f"domain={tmp_path}/my domains/mine", "profile=tiny", "stage=sft", "name=full", f"out={tmp_path}"]
