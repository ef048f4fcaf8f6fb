"""The card says which code from outside the package ran, and where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from common.report.chain import load_chain
from common.report.stage_notes import outside_code_notes
from common.store.artifacts import Artifact


def test_the_code_that_ran_is_named_by_its_files(build_chain: Callable[..., dict[str, Artifact]]) -> None:
    chain = load_chain(build_chain())
    assert outside_code_notes(chain) == []
    ran = {"digest": "ab" * 16, "files": {"rewards.py": "c" * 64, "eval/a`b.py": "d" * 64}}
    manifests = {
        name: {**manifest, "outside_code": ran} if name in ("sft", "dpo") else manifest
        for name, manifest in chain.manifests.items()
    }
    assert outside_code_notes(replace(chain, manifests=manifests)) == [
        "Code that is not part of the package ran in `sft`, `dpo`, as its user allowed (digest `abababababab`): "
        "`rewards.py`, `eval/a'b.py`."
    ]
