"""Read data sets of the Hub, one record at a time, and say what to do when that fails.

Usage: `for record in read_hub(source): ...`.

Whether every data set of a run can be read at all is `common.data.manifest.probe`, which asks before anything is spent.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from common.data.manifest.readers import Record
from common.data.manifest.schema import Source
from common.errors import DataError

_UNREACHABLE = frozenset({
    "ConnectionError", "TimeoutError", "TransportError", "RequestException", "HfHubHTTPError",
    "LocalEntryNotFoundError",
})  # fmt: skip
# Answers of a Hub that was reached; httpx and huggingface_hub count some of them among the above.
_ANSWERED = frozenset({"RepositoryNotFoundError", "RevisionNotFoundError", "RemoteEntryNotFoundError"})


class HubUnreachable(DataError):
    """The Hub did not answer for a data set; `cause` says how."""

    def __init__(self, message: str, cause: str) -> None:
        super().__init__(message)
        self.cause = cause


def read_hub(source: Source) -> Iterator[Record]:
    """Stream the records of a Hub data set. Raises DataError when it cannot be reached or is not as described."""
    import datasets

    assert source.hub is not None, f"source {source.id} is not on the Hub"
    files = [*source.data_files] if isinstance(source.data_files, tuple) else source.data_files
    name = name_of(source)
    row = 0
    try:
        stream = datasets.load_dataset(
            source.hub, source.config, split=source.split, revision=source.revision, data_files=files, streaming=True
        )
        for value in stream:
            row += 1
            yield Record(f"{name}, row {row}", value)
    except Exception as error:  # the library raises a dozen types here; the message below keeps the cause
        raise _problem(source, row, error) from error


def commit_of(source: Source) -> str:
    """Ask the Hub which commit a source's revision, or else its main branch, points to. Raises DataError."""
    import huggingface_hub

    assert source.hub is not None, f"source {source.id} is not on the Hub"
    try:
        info = huggingface_hub.HfApi().dataset_info(source.hub, revision=source.revision)
    except Exception as error:  # as above
        raise _problem(source, 0, error) from error
    assert info.sha is not None, "the Hub names a commit for every revision"
    return info.sha


def name_of(source: Source) -> str:
    """Return how messages name a source of the Hub."""
    return f"{source.hub}[{source.split}]"


def gate_problem(source: Source) -> str | None:
    """Say what to do about a source that is marked gated when there is no token, or None."""
    return f"is gated and there is no token. {_remedy(source)}" if source.gated and not has_token() else None


def has_token() -> bool:
    """Whether this machine may ask the Hub as somebody."""
    if os.environ.get("HF_TOKEN"):
        return True
    import huggingface_hub

    return huggingface_hub.get_token() is not None


def _remedy(source: Source) -> str:
    return (
        f"Accept its terms on https://huggingface.co/datasets/{source.hub}, then run `hf auth login` or set HF_TOKEN; "
        "or set enabled: false"
    )


def _problem(source: Source, row: int, error: Exception) -> DataError:
    cause = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
    if isinstance(error, ConnectionError) and "offline mode" in cause:
        cause = "it did not answer, or HF_HUB_OFFLINE is set"
    place = f"{name_of(source)} after row {row}" if row else name_of(source)
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
