"""Names of persons in a text, by presidio and a spaCy pipeline that is installed. Nothing is downloaded.

Usage: `find = name_finder("en", "en_core_web_sm")`; `list(find("Ada Lovelace wrote it."))`.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

from common.data.personal.spans import Span
from common.errors import ConfigError

SURE = 0.5  # least score of presidio; spaCy's names have 0.85


def name_finder(language: str, pipeline: str) -> Callable[[str], Iterator[Span]]:
    """Return what yields the names in a text. Raises ConfigError where presidio or the pipeline is not installed."""
    check_names(pipeline)
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NlpEngineProvider
    from presidio_analyzer.predefined_recognizers import SpacyRecognizer

    models = [{"lang_code": language, "model_name": pipeline}]
    engine = NlpEngineProvider(nlp_configuration={"nlp_engine_name": "spacy", "models": models}).create_engine()
    registry = RecognizerRegistry(supported_languages=[language])
    registry.add_recognizer(SpacyRecognizer(supported_language=language, supported_entities=["PERSON"]))
    analyzer = AnalyzerEngine(nlp_engine=engine, registry=registry, supported_languages=[language])

    def find(text: str) -> Iterator[Span]:
        for found in analyzer.analyze(text, language=language, entities=["PERSON"], score_threshold=SURE):
            yield Span(found.start, found.end, "name")

    return find


def check_names(pipeline: str) -> None:
    """Raise ConfigError where presidio or the spaCy pipeline is not installed; nothing is loaded."""
    if not _installed("presidio_analyzer") or not _installed("spacy"):
        raise ConfigError(
            "pii.names needs presidio, which is not installed. Install the extra `names`, or leave `names` out."
        )
    if not Path(pipeline).is_dir() and not _installed(pipeline):
        raise ConfigError(
            f"pii.pipeline is {pipeline!r}; expected an installed spaCy pipeline or its folder. Install it, as "
            "`python -m spacy download en_core_web_sm` does, or leave `names` out."
        )


def _installed(module: str) -> bool:
    with contextlib.suppress(ImportError, ValueError):
        return importlib.util.find_spec(module) is not None
    return False
