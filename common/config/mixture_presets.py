"""Shares of sources that papers give for CPT, by name: of languages, translations, code, synthetic text and problems.

Usage: `PRESETS["syne-bilingual"].shares["zh"] == 0.2`; in a manifest
`settings: {cpt: {mixture: {preset: syne-bilingual, parts: {zh: [wiki-zh], en: [wiki, books]}}}}`.

A preset names parts, and the stage says which of its sources each part is (`common.config.mixture`). Shares are of the
stage's own tokens; replay is beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Preset(NamedTuple):
    """Shares by part, and where they are from."""

    shares: Mapping[str, float]
    paper: str
    ours: str = ""  # what of it is ours, and not the paper's


_CODE = "the share of code, which the paper does not give"
PRESETS: Mapping[str, Preset] = {
    "syne-bilingual": Preset({"zh": 0.2, "en": 0.8}, "arXiv 2407.18743, bilingual adaptation"),
    "syne-synthetic": Preset(
        {"zh": 0.1, "en": 0.7, "synthetic": 0.2}, "arXiv 2407.18743, synthetic enhancement"
    ),
    "problems": Preset({"corpus": 0.3, "problems": 0.7}, "arXiv 2501.14002, 3:7"),
    "mono": Preset({"mono": 1.0}, "arXiv 2504.04152"),
    "mono-code": Preset({"mono": 0.8, "code": 0.2}, "arXiv 2504.04152", _CODE),
    "bilingual": Preset({"bilingual": 1.0}, "arXiv 2504.04152"),
    "bilingual-code": Preset({"bilingual": 0.8, "code": 0.2}, "arXiv 2504.04152", _CODE),
}  # fmt: skip
