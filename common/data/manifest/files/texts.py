"""Read text files, and cut long texts into pieces, by paragraphs or lines.

Usage: `for record in read_texts(file, Reading(unit="line")): ...`; `for piece in pieces_of(text, "paragraph"): ...`.

No paragraph and no line is split. What a row may hold at most is for the source (`longest`) or the stage to say.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from common.data.manifest.files.encoding import read_lines, read_text
from common.data.manifest.files.source_file import Flaw, Reading, Record, SourceFile

PARAGRAPH_CHARACTERS = 2000  # paragraphs are joined up to about this length
Text = tuple[int, str]


def read_texts(file: SourceFile, reading: Reading) -> Iterator[Record]:
    """Yield the records of a text file: paragraphs joined, lines, or the file; front matter of markdown is left out."""
    flawed: list[Record] = []
    whole = reading.unit == "file"
    lines = enumerate(read_text(file, reading), start=1) if whole else _sound_lines(file, reading, flawed)
    if file.format == ".md":
        lines = _without_front_matter(lines)
    texts: Iterator[Text]
    if whole:
        texts = iter([(1, "".join(line for _, line in lines))])
    elif reading.unit == "line":
        texts = ((number, line.rstrip("\r\n")) for number, line in lines if line.strip())
    else:
        texts = _join(_paragraphs(lines), "\n\n")
    for number, text in texts:
        yield Record(f"{file.name}, line {number}", {"text": text})
        yield from flawed
        flawed.clear()
    yield from flawed


def nul_flaw(where: str) -> Flaw:
    """Return the flaw of a line with NUL bytes."""
    return Flaw("NUL bytes", f"{where} holds NUL bytes, as a file does that was damaged while it was written")


def _sound_lines(file: SourceFile, reading: Reading, flawed: list[Record]) -> Iterator[Text]:
    """Yield lines; one that cannot be used is added to `flawed` and ends a paragraph as an empty one does."""
    for number, line in read_lines(file, reading):
        where = f"{file.name}, line {number}"
        if isinstance(line, str) and "\0" in line:
            line = nul_flaw(where)
        if isinstance(line, Flaw):
            flawed.append(Record(where, {}, flaw=line))
            yield number, "\n"
        else:
            yield number, line


def pieces_of(text: str, cut: str) -> Iterator[str]:
    """Yield a long text in pieces: paragraphs, or lines, joined up to about PARAGRAPH_CHARACTERS; none is split."""
    lines = enumerate(text.splitlines(keepends=True), start=1)
    if cut == "line":
        joined = _join(((number, line.rstrip()) for number, line in lines if line.strip()), "\n")
    else:
        joined = _join(_paragraphs(lines), "\n\n")
    yield from (piece for _, piece in joined)


def numbered_pieces(text: str, unit: str) -> Iterator[Text]:
    """Yield what `unit` makes of a text: all of it, its lines, or its paragraphs joined; each with its number."""
    if unit == "file":
        yield 1, text
        return
    lines = enumerate(text.splitlines(keepends=True), start=1)
    if unit == "line":
        yield from ((number, line.strip()) for number, line in lines if line.strip())
        return
    paragraphs = (paragraph for _, paragraph in _paragraphs(lines))
    yield from _join(iter(enumerate(paragraphs, start=1)), "\n\n")


def _without_front_matter(lines: Iterator[Text]) -> Iterator[Text]:
    """Leave out a block between `---` lines at the very start; one that never closes is text."""
    held = [line for line in [next(lines, None)] if line is not None]
    if held and held[0][1].rstrip() == "---":
        for line in lines:
            held.append(line)
            if line[1].rstrip() in ("---", "..."):
                held = []
                break
    yield from held
    yield from lines


def _paragraphs(lines: Iterator[Text]) -> Iterator[Text]:
    for is_text, group in itertools.groupby(lines, lambda line: bool(line[1].strip())):
        if is_text:
            numbers, texts = zip(*group, strict=True)
            yield numbers[0], "\n".join(text.rstrip() for text in texts)


def _join(paragraphs: Iterator[Text], between: str) -> Iterator[Text]:
    start, held = 0, ""
    for number, text in paragraphs:
        if held and len(held) + len(text) > PARAGRAPH_CHARACTERS:
            yield start, held
            held = ""
        start, held = (start, f"{held}{between}{text}") if held else (number, text)
    if held:
        yield start, held
