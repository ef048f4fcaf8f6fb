"""The package, its metadata and the changelog name one version."""

from __future__ import annotations

import re
from importlib import metadata

import common
from tests.conftest import REPOSITORY


def test_the_newest_release_is_what_the_package_says() -> None:
    text = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## (\d+\.\d+\.\d+) \(\d{4}-\d{2}-\d{2}\)$", text, re.M)
    assert released[0] == common.__version__ == metadata.version("domain-recipes")
