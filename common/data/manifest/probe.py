"""Ask the Hub for the first record of every data set that a run needs, before anything is spent.

Usage: `problems = probe(sources, revisions)`; an empty list means that each can be read and has the columns that it
names. The commit of each is noted in `revisions`.

It reads one record of each and never the whole. Local files are `common.data.manifest.manifest_checks`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from common.data.manifest.hub import HubUnreachable, gate_problem, name_of, read_hub
from common.data.manifest.readers import Record
from common.data.manifest.records import missing_columns
from common.data.manifest.revisions import Revisions
from common.data.manifest.schema import Source
from common.errors import DataError

WORKERS = 8
Reader = Callable[[Source], Iterator[Record]]


def probe(sources: Sequence[Source], revisions: Revisions, reader: Reader = read_hub) -> list[str]:
    """Return one line per problem of the enabled Hub sources, and one for all those that cannot be reached."""
    asked = [source for source in sources if source.enabled and source.hub is not None]
    if not asked:
        return []
    if reader is read_hub:
        import datasets  # noqa: F401  # once, here: threads that import it together may see half of it
    with _without_retry_notes(), ThreadPoolExecutor(WORKERS) as pool:
        answers = list(pool.map(lambda source: _ask(source, revisions, reader), asked))
    problems = [problem for answer in answers if isinstance(answer, list) for problem in answer]
    away = [pair for pair in zip(asked, answers, strict=True) if isinstance(pair[1], HubUnreachable)]
    if away:
        names = ", ".join(f"'{source.id}' ({source.hub})" for source, _ in away)
        causes = ", ".join(dict.fromkeys(error.cause for _, error in away if isinstance(error, HubUnreachable)))
        problems.append(
            f"the Hub could not be reached for {len(away)} source{'s' if len(away) > 1 else ''}: {names}. It said: "
            f"{causes}. Check the network and try again; data=embedded needs none"
        )
    return problems


@contextlib.contextmanager
def _without_retry_notes() -> Iterator[None]:
    """Keep the client's note on every retry of every request to itself; what came of them is reported once."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _ask(source: Source, revisions: Revisions, reader: Reader) -> list[str] | HubUnreachable:
    """Return what is wrong with a source, or that the Hub did not answer."""
    start = f"source '{source.id}': "
    if gate := gate_problem(source):
        return [start + gate]
    records: Iterator[Record] = iter(())
    try:
        records = reader(revisions.pin(source))
        record = next(records, None)
    except HubUnreachable as error:
        return error
    except DataError as error:
        message = str(error)
        return [message[0].lower() + message[1:].rstrip(".")]
    finally:
        close = getattr(records, "close", None)  # a stream that is not read to its end
        if close is not None:
            close()
    if record is None:
        return [f"{start}{name_of(source)} has no row"]
    return [start + problem.rstrip(".") for problem in missing_columns(source, record.value, name_of(source))]
