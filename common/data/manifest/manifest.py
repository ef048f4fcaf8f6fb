"""A domain's data as a manifest lists it: checked as a whole when loaded, read row by row when used.

Usage:
    corpus = load_manifest(Path("domains/medical/data.yaml"), root=None)
    for row in corpus.rows("cpt"): ...
    corpus.counts("cpt")["medquad-cdc"].dropped

Keys are described in `common.data.manifest.schema`. It neither mixes nor tokenises rows, and it drops none for overlap
with the exam: that is `common.data.decontaminate`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from common.config.defaults import differing
from common.config.forms import described
from common.config.validation import report
from common.config.yaml import read_manifest
from common.data.accounting import RowCount
from common.data.corpus import CORPUS_ROLES, Portion, Row
from common.data.manifest.documents.reader import readers_of
from common.data.manifest.hub import probe, read_hub
from common.data.manifest.manifest_checks import (
    CheckedSources,
    Suited,
    check_essential,
    check_sources,
    check_together,
    describe_role,
    parse_manifest,
)
from common.data.manifest.readers import SourceFile
from common.data.manifest.revisions import Revisions
from common.data.manifest.schema import Manifest, Source
from common.data.manifest.source_keys import Part
from common.data.manifest.source_rows import digest_row, file_records, hub_records, usable_rows
from common.errors import ConfigError, DataError, did_you_mean
from common.system.secrets import find

_log = logging.getLogger(__name__)
# A stage that asks for these cannot go on with nothing; the others may be empty.
_NEEDED = frozenset({"pretrain", "cpt", "sft", "preference"})
# Keys that say where a source is or what is known of it, not which rows it gives. Columns are resolved below.
_NOT_IDENTITY = ("path", "licence", "gated", "enabled", "evidence", "note", "columns")


def load_manifest(
    path: Path, root: Path | None, *, essential: Sequence[str] = (), revisions: Revisions | None = None,
    suited: Suited = lambda serves: (),
) -> ManifestCorpus:  # fmt: skip
    """Load and check a manifest. Relative paths are below `root`, or below the manifest's folder.

    `essential` are the corpus roles that the run cannot do without; training on something is always essential.
    `suited` names the pipelines that could do with the roles that have rows.
    `revisions` are the commits of data sets of the Hub that are known, and where new ones are noted.
    Raises ConfigError for keys and values, DataError for everything else, each with all problems at once.
    """
    folder = path.parent if root is None else root
    if not folder.is_dir():
        raise DataError(f"data_root={folder} is not a folder. Pass the folder that the paths in {path} start from.")
    raw = read_manifest(path)
    if not isinstance(raw, dict):
        raise DataError(f"{path}: holds no keys at its top level. Expected title and sources.")
    if place := find(raw):
        raise DataError(
            f"{path}: {place} holds what looks like an access token or a password. Results keep what a manifest says: "
            "take it out, and set HF_TOKEN or run `hf auth login`."
        )
    manifest, sources, wrong = parse_manifest(raw)
    known = revisions or Revisions(None)
    checked = check_sources(sources, folder, lambda source: read_hub(known.pin(source)), known.commit)
    problems = [*checked.problems, *check_together(checked.sources, checked.files)]
    if manifest is None:
        raise ConfigError(report(str(path), wrong + problems))
    manifest = manifest.model_copy(update={"sources": tuple(checked.sources)})
    problems += check_essential(manifest.sources, essential, suited)
    if not any(source.enabled and source.role not in ("eval", "prompts") for source in manifest.sources):
        problems.append("no enabled source to train on. Enable or add one with role pretrain, cpt, sft or preference")
    if problems:
        raise DataError(report(str(path), problems))
    return ManifestCorpus(manifest, checked, known)


class ManifestCorpus:
    """The rows that a manifest describes. Counts are those of the newest pass over a role."""

    def __init__(self, manifest: Manifest, checked: CheckedSources, revisions: Revisions) -> None:
        self.manifest = manifest
        self.domain_title = manifest.title
        self._files = checked.files
        self._shapes = checked.shapes
        self._seen = checked.seen
        self._revisions = revisions
        self._counts: dict[str, dict[str, RowCount]] = {}
        self._findings = checked.findings

    def identity(self, roles: Sequence[str]) -> list[dict[str, Any]]:
        """Return what defines the rows of these roles: digests or Hub revision, columns, weights. Never paths."""
        return [
            self._identity(source) | {"rows": role, "part": part}
            for role in roles
            for source, part in self._serving(role)
        ]

    def _identity(self, source: Source) -> dict[str, Any]:
        facts = differing(self._revisions.apply(source), _NOT_IDENTITY)
        facts["columns"] = {name: source.named_columns[name] for name in sorted(source.named_columns)}
        if source.hub is None:
            files = self._files[source.id]
            facts["files"] = [[file.format + file.packing, file.digest] for file in files]
            if readers := readers_of([file.format for file in files], source.pdf):
                facts["readers"] = readers
        return json.loads(json.dumps(facts))  # type: ignore[no-any-return]  # tuples become lists, as once stored

    def rows(self, role: str) -> Iterator[Row]:
        """Yield the rows of a role, source after source. Raises DataError when a role that trains has no source."""
        if role not in CORPUS_ROLES:
            raise DataError(f"There are no rows for '{role}'.{did_you_mean(role, CORPUS_ROLES)}")
        serving = self._serving(role)
        if not serving and role in _NEEDED:
            raise DataError(
                f"The manifest '{self.domain_title}' has no enabled source with rows for {role}. "
                f"Enable or add one with {describe_role(role)}."
            )
        return self._read(role, serving)

    def portions(self, role: str, *, hub: bool = False) -> list[Portion] | None:
        """Return the rows of a role by source, or None where one of its sources is on the Hub; not so with `hub`."""
        serving = self._serving(role)
        if not hub and any(source.hub is not None for source, _ in serving):
            return None
        return [self._portion(source, part, role) for source, part in serving]

    def _portion(self, source: Source, part: Part, role: str) -> Portion:
        files = self._files.get(source.id, [])  # none of a data set of the Hub
        size = sum(file.size for file in files)
        read = [0.0] * len(files)
        watched = [file._replace(on_read=partial(read.__setitem__, place)) for place, file in enumerate(files)]
        weight = source.weight if part == "train" else 1.0
        kept, count = min(1.0, weight), RowCount(source.id, role)
        most = math.inf if source.limit is None else kept * source.limit
        rows = self._pass(source, part, kept, count, watched)

        def share() -> float:
            return max(sum(read) / size if size else 0.0, count.num_kept / most)

        return Portion(source.id, rows, max(1.0, weight), share, count, far=source.hub is not None, size=size)

    def counts(self, role: str) -> dict[str, RowCount]:
        """Return the accounts of a role by source id, as far as its rows have been read."""
        return self._counts.get(role, {})

    def findings(self) -> dict[str, list[str]]:
        """Return what was found out about the sources so far: delimiters, encodings, the first row of each loss."""
        return {name: found.messages for name, found in self._findings.items() if found.messages}

    def exam_roles(self, role: str) -> tuple[str, ...]:
        """Return the roles of the exam that rows of a training role must not repeat: all questions and texts."""
        return ("questions_domain", "questions_general", "text_domain", "text_general")

    def conversations(self, role: str) -> dict[str, bool]:
        """Return the sources of a role, each with whether its rows are conversations, as its columns say."""
        return {source.id: source.makes == "chat" for source, _ in self._serving(role)}

    def shapes(self) -> dict[str, str]:
        """Return what the rows of each enabled source were taken for, by id."""
        return {source.id: self._shapes[source.id] for source in self.manifest.sources if source.id in self._shapes}

    def unpaired(self, role: str) -> dict[str, bool]:
        """Return the sources of a role, each with whether its rows are single answers with a label, and no pairs."""
        return {source.id: source.unpaired for source, _ in self._serving(role)}

    def check_rows(self, roles: Sequence[str]) -> None:
        """Ask the Hub for each of its sources, and read every local row, of these roles; prompts are always asked for.

        Raises DataError with all that was found: what the Hub lacks, and the first broken row of each local source.
        """
        serving = [(role, source, part) for role in roles for source, part in self._serving(role)]
        asked = [source for _, source, _ in serving] + [source for source, _ in self._serving("prompts")]
        problems = probe(list({source.id: source for source in asked}.values()), self._revisions.pin)
        self._revisions.save()
        for role, source, part in serving:
            if source.hub is not None:
                continue
            count = RowCount(source.id, role)
            try:
                num_rows = sum(1 for _ in self._pass(source, part, 1.0, count))
                if part == "train":
                    _check_usable(source, part, count, num_rows)
            except DataError as error:
                problems.append(str(error))
        if problems:
            raise DataError(report(f"The data of '{self.domain_title}'", list(dict.fromkeys(problems))))

    def sources(self) -> list[dict[str, Any]]:
        """Return the enabled sources as the card lists them; rows once they have been read."""
        return [
            {
                "id": source.id,
                "role": source.role,
                "title": source.hub or source.id,
                "licence": source.licence,
                **({"revision": self._revisions.of(source)} if source.hub else {"digest": self._digest(source)}),
                "rows": self._rows_read(source),
                **({"form": described(source.form)} if source.form else {}),
            }
            for source in self.manifest.sources
            if source.enabled
        ]

    def _serving(self, role: str) -> list[tuple[Source, Part]]:
        return [(s, part) for s in self.manifest.sources if s.enabled and (part := s.part_for(role)) is not None]

    def _digest(self, source: Source) -> str:
        digests = [file.digest for file in self._files[source.id]]
        return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()

    def _rows_read(self, source: Source) -> int | None:
        for role, counts in self._counts.items():
            if source.id in counts and source.part_for(role) == "train":
                return round(counts[source.id].num_kept / source.weight)
        return None

    def _read(self, role: str, serving: Sequence[tuple[Source, Part]]) -> Iterator[Row]:
        counts = self._counts[role] = {source.id: RowCount(source.id, role) for source, _ in serving}
        seen: set[bytes] = set()
        for source, part in serving:
            count, num_rows = counts[source.id], 0
            _log.info("source %s: read as %s", source.id, self._shapes.get(source.id, source.shape))
            for row in self._repeat(source, part, count):
                num_rows += 1
                if role.startswith("text_"):  # two sources over the same texts hold the same ones out
                    digest = digest_row(row)
                    if digest in seen:
                        count.rows_out -= 1
                        count.drop("duplicate")
                        continue
                    seen.add(digest)
                yield row
            _log.info("source %s: %d rows for %s; dropped: %s", source.id, num_rows, role, count.losses)
            _check_usable(source, part, count, num_rows)

    def _repeat(self, source: Source, part: Part, count: RowCount) -> Iterator[Row]:
        """Yield a source's rows as often as its weight says: whole passes, then evenly spaced rows of one more."""
        weight = source.weight if part == "train" else 1.0
        for number in range(math.ceil(weight)):
            yield from self._pass(source, part, min(1.0, weight - number), count)

    def _pass(
        self, source: Source, part: Part, share: float, count: RowCount, files: Sequence[SourceFile] | None = None
    ) -> Iterator[Row]:
        """Yield a share of the usable rows of one part of a source; `files` are read instead of the source's own."""
        if source.hub is not None:
            records = hub_records(self._revisions.apply(source))
        else:
            records = file_records(source, files or self._files[source.id])
        note, told = self._findings[source.id], self._seen.get(source.id)
        yield from usable_rows(source, part, share, records, count, note=note, told=told)


def _check_usable(source: Source, part: Part, count: RowCount, num_rows: int) -> None:
    """Warn of a held-out share without a row. Raises DataError when a source gives none at all."""
    if num_rows:
        return
    if part == "heldout":
        _log.warning("source %s: heldout %s keeps no row; the source is too small", source.id, source.heldout)
        return
    raise DataError(
        f"Source '{source.id}' gives no usable row for {count.role}: {count.rows_in} read, dropped: {count.losses}. "
        f"{count.remedy('Check its columns, where, skip, weight and heldout')}."
    )
