"""The installed package: it holds every shipped file, and its command works in an empty folder."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.conftest import QUICK, REPOSITORY

pytestmark = pytest.mark.slow

PACKAGES = ("common", "domains", "pipelines")
BUILD = "import sys, setuptools.build_meta as b; print(getattr(b, sys.argv[1])(sys.argv[2]))"
COMMAND = "import sys; from common.cli.main import console_main; sys.exit(console_main())"


def shipped() -> set[str]:
    """Return the files that must travel: everything below the packages."""
    return {f"{package}/{name}" for package in PACKAGES for name in files_of(REPOSITORY / package)}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the build reads, since setuptools writes beside it."""
    root: Path = tmp_path_factory.mktemp("source")
    for name in PACKAGES:
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, root / name)
    return root


def build(source: Path, what: str, out: Path) -> Path:
    """Build a wheel or an sdist offline, with the setuptools that is here."""
    pytest.importorskip("setuptools")
    done = subprocess.run(
        [sys.executable, "-c", BUILD, what, str(out)], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def site(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder such as site-packages, with the wheel unpacked into it."""
    folder: Path = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(build(source, "build_wheel", tmp_path_factory.mktemp("dist"))) as wheel:
        wheel.extractall(folder)
    return folder


def installed(site: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(site), "COLUMNS": "120"}
    return subprocess.run(
        [sys.executable, "-P", "-c", COMMAND, *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def files_of(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in paths}


def test_the_wheel_holds_every_shipped_file_and_no_other(site: Path) -> None:
    inside = {name for name in files_of(site) if ".dist-info/" not in name}
    assert shipped() - inside == set()
    assert inside - shipped() == set()


def test_the_sdist_holds_every_shipped_file(source: Path, tmp_path: Path) -> None:
    with tarfile.open(build(source, "build_sdist", tmp_path)) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert shipped() - inside == set()


def test_the_entry_point_is_the_command(site: Path) -> None:
    [path] = site.glob("*.dist-info/entry_points.txt")
    parser = configparser.ConfigParser()
    parser.read(path)
    assert dict(parser["console_scripts"]) == {"domain-recipes": "common.cli.main:console_main"}


def test_it_plans_shows_and_makes_domains_in_an_empty_folder(site: Path, tmp_path: Path) -> None:
    before = files_of(site)
    done = installed(site, tmp_path, "plan", "domain=medical")
    assert done.returncode == 0, done.stderr
    assert "14 stages" in done.stdout
    assert files_of(tmp_path) == set()

    done = installed(site, tmp_path, "new-domain", "name=chemistry")
    assert done.returncode == 0, done.stderr
    assert "domain-recipes run domain=./chemistry" in done.stdout
    assert "domain-recipes run domain=./chemistry" in (tmp_path / "chemistry" / "README.md").read_text("utf-8")
    done = installed(site, tmp_path, "plan", "domain=./chemistry")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("chemistry: ")

    done = installed(site, tmp_path, "new-domain", "name=medical")
    assert "error: name=medical: a shipped domain has that name. Choose another, such as my-medical." in done.stderr
    done = installed(site, tmp_path, "plan", "domain=chemistry")
    assert "use domain=./chemistry" in done.stderr
    done = installed(site, tmp_path, "publish", "domain=./chemistry")
    assert "Run `domain-recipes run domain=./chemistry` first" in done.stderr
    assert installed(site, tmp_path, "status").stdout.count("not run yet") == 6
    assert files_of(site) == before


@pytest.mark.long
def test_a_run_leaves_its_results_in_the_current_folder(site: Path, tmp_path: Path) -> None:
    before = files_of(site)
    assert installed(site, tmp_path, "new-domain", "name=chemistry").returncode == 0
    settings = [
        f"{key}={value}" for key, value in QUICK.items() if not key.startswith(("cpt", "dpo", "run", "embedded.pref"))
    ]
    done = installed(site, tmp_path, "run", "domain=./chemistry", "pipeline=sft-only", *settings)
    assert done.returncode == 0, done.stderr
    assert "Model: models/chemistry/v1" in done.stdout
    assert "Talk to it: domain-recipes chat domain=./chemistry pipeline=sft-only" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} >= {"artifacts", "runs", "models", "chemistry"}
    manifest = next((tmp_path / "artifacts").glob("sft*/manifest.json")).read_text("utf-8")
    assert '"commit": null' in manifest
    assert "common/training/fit.py" in manifest  # code is known by its digests
    assert "chemistry" in installed(site, tmp_path, "status").stdout
    view = tmp_path / "runs" / "chemistry" / "tiny" / "sft-only"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = installed(site, elsewhere, "stage", str(view / "plan.json"), "card")
    assert done.returncode == 0, done.stderr
    assert files_of(site) == before
