"""Fingerprints of every stage of every shipped pipeline, profile and domain, computed without training.

Usage: `fingerprints_of("medical", "tiny", "full")`; `python -m tests.golden` writes what is checked in.

An input that would have to be trained is stood in for by its own fingerprint, so that a change shows in all stages
behind it. Every machine computes the same: the planned one has bfloat16, and what is in a package is stood in for by
its name, since that is installed here and not there.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any
from unittest import mock

from common.config.folders import names_in
from common.config.resolve import EMBEDDED, Resolved, resolve
from common.config.schema import ModelSettings
from common.data.corpus import Corpus
from common.engine.corpora import open_corpus
from common.engine.fingerprint import recipe_of
from common.models.local import PACKAGE
from common.models.source import digest_checkpoint
from common.store.artifacts import Artifact, fingerprint_of
from tests.conftest import REPOSITORY

FILE = Path(__file__).with_name("fingerprints.json")
CREATED = "2026-01-01T00:00:00+00:00"


def shipped() -> list[tuple[str, str, str]]:
    """Return every shipped domain, profile and pipeline together."""
    domains, profiles = names_in(REPOSITORY / "domains", ""), names_in(REPOSITORY / "pipelines" / "profiles")
    return list(itertools.product(domains, profiles, names_in(REPOSITORY / "pipelines")))


def fingerprints_of(domain: str, profile: str, pipeline: str) -> dict[str, str]:
    """Return the fingerprint of each stage, in running order."""
    with mock.patch("common.config.build.native", return_value=("bfloat16", "as everywhere")):
        resolved = resolve({"domain": domain, "profile": profile, "pipeline": pipeline}, REPOSITORY)
    corpus = _corpus_of(resolved)
    made: dict[str, Artifact] = {}
    for node in resolved.nodes:
        inputs = {name: made[name] for name in node.inputs}
        with mock.patch("common.engine.fingerprint.digest_checkpoint", _digest):
            fingerprint = fingerprint_of(recipe_of(node, resolved, corpus, inputs))
        made[node.name] = Artifact(Path(), {"fingerprint": fingerprint, "digest": fingerprint, "created": CREATED})
    return {name: artifact.fingerprint for name, artifact in made.items()}


_corpora: dict[tuple[str, ...], Corpus] = {}


def _corpus_of(resolved: Resolved) -> Corpus:
    """Return the rows of a run; embedded knowledge, which takes seconds to write, is the same for many runs."""
    config = resolved.config
    if config.data != EMBEDDED:
        return open_corpus(resolved)
    key = (config.domain, config.embedded.model_dump_json(), str(config.seed))
    if key not in _corpora:
        _corpora[key] = open_corpus(resolved)
    return _corpora[key]


def _digest(model: ModelSettings, key: str = "model") -> dict[str, Any]:
    """Return what identifies a checkpoint; of one in a package the name alone."""
    return {"stand-in": model.path} if str(model.path).startswith(PACKAGE) else digest_checkpoint(model, key)


def all_fingerprints() -> dict[str, str]:
    """Return a line for each shipped combination: its stages with the first half of their fingerprints."""
    lines = {}
    for names in shipped():
        stages = fingerprints_of(*names)
        lines["/".join(names)] = " ".join(f"{stage}={digest[:8]}" for stage, digest in stages.items())
    return lines


def checked_in() -> dict[str, str]:
    """Return the lines that are checked in."""
    lines: dict[str, str] = json.loads(FILE.read_text(encoding="utf-8"))
    return lines
