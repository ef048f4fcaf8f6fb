"""Read data sets of the Hub, ask for each before anything is spent, and say what to do when that fails.

Usage: `for record in read_hub(source): ...`; `problems = probe(sources, revisions.pin)`.

Which commit of a data set a run reads is `common.data.manifest.revisions`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from common.data.manifest.readers import Record
from common.data.manifest.records import missing_columns
from common.data.manifest.schema import Source
from common.errors import DataError
from common.models.source import HubUnreachable
from common.system.limited import Exceeded, flowing, watched

WORKERS = 8
ANSWER_SECONDS = 60.0  # for what is asked of the Hub before a run
ROW_SECONDS = 300.0  # for the next row; a block of rows comes as a whole, over slow lines too
Reader = Callable[[Source], Generator[Record]]
_UNREACHABLE = frozenset({
    "ConnectionError", "TimeoutError", "TooManyRedirects", "Exceeded", "TransportError", "RequestException",
    "HfHubHTTPError", "LocalEntryNotFoundError",
})  # fmt: skip
# Answers of a Hub that was reached; httpx and huggingface_hub count some of them among the above.
_ANSWERED = frozenset({"RepositoryNotFoundError", "RevisionNotFoundError", "RemoteEntryNotFoundError"})


def read_hub(source: Source) -> Generator[Record]:
    """Stream the records of a Hub data set. Raises DataError when it cannot be reached or is not as described."""
    import datasets

    assert source.hub is not None, f"source {source.id} is not on the Hub"
    files = [*source.data_files] if isinstance(source.data_files, tuple) else source.data_files
    row = 0
    name, split, revision = source.hub, source.split, source.revision

    def values() -> Iterator[Any]:
        yield from datasets.load_dataset(
            name, source.config, split=split, revision=revision, data_files=files, streaming=True
        )

    try:
        for value in flowing(values(), ROW_SECONDS):
            row += 1
            yield Record(f"{_name_of(source)}, row {row}", value)
    except Exception as error:  # the library raises a dozen types here; the message below keeps the cause
        raise _problem(source, row, error) from error


def commit_of(source: Source) -> str:
    """Ask the Hub which commit a source's revision, or else its main branch, points to. Raises DataError."""
    import huggingface_hub

    assert source.hub is not None, f"source {source.id} is not on the Hub"
    try:
        name, revision = source.hub, source.revision
        info = watched(lambda: huggingface_hub.HfApi().dataset_info(name, revision=revision), ANSWER_SECONDS)
    except Exception as error:  # as above
        raise _problem(source, 0, error) from error
    assert info.sha is not None, "the Hub names a commit for every revision"
    return info.sha


def probe(sources: Sequence[Source], pin: Callable[[Source], Source], reader: Reader = read_hub) -> list[str]:
    """Read the first record of every enabled Hub source, at the commit that `pin` notes for it.

    Returns one line per problem of a source, and one for all those that cannot be reached.
    """
    asked = [source for source in sources if source.enabled and source.hub is not None]
    if not asked:
        return []
    if reader is read_hub:
        import datasets  # noqa: F401  # once, here: threads that import it together may see half of it
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)  # no note on every retry of every request: what came of them is reported once
    try:
        with ThreadPoolExecutor(WORKERS) as pool:
            silent: list[str] = []  # nobody waits a second time for a Hub that does not answer
            answers = list(pool.map(lambda source: _ask(source, pin, reader, silent), asked))
    finally:
        logger.setLevel(level)
    problems = [problem for answer in answers if isinstance(answer, list) for problem in answer]
    away = [(source, error) for source, error in zip(asked, answers, strict=True) if isinstance(error, HubUnreachable)]
    if away:
        names = ", ".join(f"'{source.id}' ({source.hub})" for source, _ in away)
        causes = ", ".join(dict.fromkeys(error.cause for _, error in away))
        problems.append(
            f"the Hub could not be reached for {len(away)} source{'s' if len(away) > 1 else ''}: {names}. It said: "
            f"{causes}. Check the network and try again; data=embedded needs none"
        )
    return problems


def _ask(
    source: Source, pin: Callable[[Source], Source], reader: Reader, silent: list[str]
) -> list[str] | HubUnreachable:
    """Return what is wrong with a source, or that the Hub did not answer."""
    start = f"source '{source.id}': "
    if gate := gate_problem(source):
        return [start + gate]
    if silent:
        return HubUnreachable(f"{start}{silent[0]}", silent[0])
    try:
        record = watched(lambda: _first(reader(pin(source))), ANSWER_SECONDS)
    except HubUnreachable as error:
        return error
    except Exceeded as limit:
        silent.append(f"no record came within {limit}")
        return HubUnreachable(f"{start}{silent[0]}", silent[0])
    except DataError as error:
        message = str(error)
        return [message[0].lower() + message[1:].rstrip(".")]
    if record is None:
        return [f"{start}{_name_of(source)} has no row"]
    return [start + problem.rstrip(".") for problem in missing_columns(source, record.value, _name_of(source))]


def _first(records: Generator[Record]) -> Record | None:
    with contextlib.closing(records):
        return next(records, None)


def _name_of(source: Source) -> str:
    return f"{source.hub}[{source.split}]"


def gate_problem(source: Source) -> str | None:
    """Say what to do about a source that is marked gated when there is no token, or None."""
    if not source.gated:
        return None
    import huggingface_hub

    return None if huggingface_hub.get_token() else f"is gated and there is no token. {_remedy(source)}"


def _remedy(source: Source) -> str:
    return (
        f"Accept its terms on https://huggingface.co/datasets/{source.hub}, then run `hf auth login` or set HF_TOKEN; "
        "or set enabled: false"
    )


def _problem(source: Source, row: int, error: Exception) -> DataError:
    cause = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
    if isinstance(error, ConnectionError) and "offline mode" in cause:
        cause = "it did not answer, or HF_HUB_OFFLINE is set"
    if isinstance(error, Exceeded):
        cause = f"nothing came within {error}"
    place = f"{_name_of(source)} after row {row}" if row else _name_of(source)
    start = f"Source '{source.id}': "
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "GatedRepoError" in kinds or "gated dataset" in cause:
        return DataError(f"{start}{place} is gated, and this account may not read it. {_remedy(source)}.")
    if kinds & _UNREACHABLE and not kinds & _ANSWERED:
        return HubUnreachable(
            f"{start}the Hub could not be reached for {place} ({cause}). Check the network and try again; "
            "data=embedded needs none.",
            cause,
        )
    if "scripts are no longer supported" in cause:
        advice = "needs a loading script, which datasets no longer runs. Try revision: refs/convert/parquet."
        return DataError(f"{start}{place} {advice}")
    advice = "Compare hub, config, split and data_files with the data set's page."
    return DataError(f"{start}{place} cannot be read ({cause}). {advice}")
