"""Of findings that many files of one source share a few are listed, with how many more."""

from __future__ import annotations

import functools
import logging

import pytest

from common.data.manifest.files.source_file import Findings


def test_findings_that_differ_in_file_and_numbers_alone_are_told_of_three(caplog: pytest.LogCaptureFixture) -> None:
    found = Findings("s")
    with caplog.at_level(logging.INFO):
        for _ in range(2):  # each reading of the files tells the same
            for number in range(40):
                name = f"a{number} b.txt"
                tell = functools.partial(found, file=name)
                tell(f"{name}, line {number}: byte 3 of the line (0xe{number % 10}) is not UTF-8")
            functools.partial(found, file="c.txt")("c.txt is read as utf-16")
    listed = ["a0 b.txt, line 0: byte 3 of the line (0xe0) is not UTF-8"]
    assert found.messages[:1] == listed
    assert found.messages[3:] == ["and 37 more like it", "c.txt is read as utf-16"]
    assert len(caplog.messages) == 4
