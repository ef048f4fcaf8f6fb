"""The page on blocks has every block with every setting; that it is up to date is `test_reference`."""

from __future__ import annotations

import re

from common.config.blocks import blocks
from common.config.pages import blocks_page


def test_every_block_has_its_part_with_all_of_its_settings() -> None:
    page = blocks_page()
    parts = dict(re.findall(r"\n## (\w+)\n(.*?)(?=\n## |\Z)", page, re.DOTALL))
    assert parts.keys() == blocks().keys()
    for name, block in blocks().items():
        shared = {"sources", "most"}
        assert set(re.findall(rf"`{name}\.(\w+)[`.]", parts[name])) == block.settings.model_fields.keys() - shared
        assert block.phrase in page
        assert "Usage:" in parts[name]
        assert block.paper in parts[name]


def test_a_link_leads_to_each_block() -> None:
    page = blocks_page()
    assert set(re.findall(r"\(#(\w+)\)", page)) == set(blocks())
