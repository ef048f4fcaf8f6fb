"""Read a file as text: its encoding, unless it is named, and its line ends are found out and reported.

Usage: `for number, line in read_lines(file, reading): ...`; a `Flaw` instead of a line is one that cannot be decoded.

The rule, in this order: a byte order mark; zeros at every second place (UTF-16 without a mark); UTF-8. Where a line is
no UTF-8 and nothing before it was proof of UTF-8, the file is taken for Windows-1252, as Excel and older editors write
it; that is reported, and refused where the result would not look like a language of western Europe. After proof of
UTF-8 (a character of several bytes) such a line is a damaged one. Nothing is guessed from frequencies of letters.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator

from common.data.manifest.files.compression import BUFFER, READ_ERRORS, open_bytes, read_problem
from common.data.manifest.files.source_file import Flaw, Reading, SourceFile
from common.errors import DataError

FALLBACK = "cp1252"
FOREIGN = 0.3  # share of letters beyond ASCII above which a line is no western European one: German has 0.02
LONGEST_LINE = 2**26  # bytes, or characters of UTF-16, at which a line that has to be held whole is given up
ENDLESS = 4 * LONGEST_LINE  # of one line: then the file is none of rows, and reading it all may take hours
LONG = 2**20  # bytes of a line that is read in parts where nobody needs it whole
FEWEST = 8  # letters beyond ASCII that the share is taken of
_MARKS = (  # UTF-32 first, as its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
ANOTHER = "Name another with encoding:, such as cp1251 or gb18030"
Line = tuple[int, str | Flaw]


def read_lines(file: SourceFile, reading: Reading, *, whole: bool = True) -> Iterator[Line]:
    """Yield line numbers from 1, and lines with their ends, or why a line cannot be decoded.

    Without `whole` a line of more than LONG bytes comes in parts, so that nobody has to hold it; with it, one of
    LONGEST_LINE is a flaw: a few kilobytes of a packed file may unpack to more than the memory.
    """
    number = size = length = 0
    inside = False  # a line that came in part
    try:
        with open_bytes(file) as (stream, position):
            start = stream.peek(BUFFER)
            wide = _wide(start, reading.encoding)
            if wide and reading.encoding is None:
                file.tell(f"{file.name} is read as {wide}, as its bytes say. {ANOTHER}")
            decode = _Decoder(file, wide or reading.encoding)
            width = 4 if wide and "32" in wide else 2 if wide else 1  # bytes of what `len` counts
            cut = not whole and reading.encoding is None  # in others a character may be cut unseen
            longest = LONGEST_LINE if whole else -1
            ends = (b"\r",) if not wide and _is_of_old_mac(start) else ("\n", b"\n")
            lines = _wide_lines(stream, wide, longest) if wide else _lines(stream, start, longest, cut=cut)
            for line in lines:
                goes_on = inside
                number += not goes_on
                size += len(line) * width
                length = length + len(line) if goes_on else len(line)
                if whole and length > ENDLESS:
                    raise DataError(
                        f"{file.name}, line {number}: has more than {ENDLESS:,} characters, so it is no file of rows. "
                        "Download or write it again."
                    )
                file.on_read(position(size))
                held = len(line) < LONGEST_LINE
                inside = line[-1:] not in ends and not (whole and held)
                if not whole or (held and not goes_on):
                    yield number, (line if isinstance(line, str) else decode(number, line))
                elif not goes_on:
                    yield number, _too_long(file, number)
            file.on_read(file.size)
    except UnicodeDecodeError as error:
        what = f"{file.name}, after line {number}: not {error.encoding}"
        raise DataError(f"{what}: {error.reason}. {ANOTHER}.") from error
    except READ_ERRORS as error:
        raise read_problem(file, f"line {number}", error) from error


def read_text(file: SourceFile, reading: Reading) -> Iterator[str]:
    """Yield the text of a file, piece by piece. Raises DataError at the first line that cannot be decoded."""
    for _, line in read_lines(file, reading, whole=False):
        if isinstance(line, Flaw):
            raise DataError(f"{line.detail}.")
        yield line


def _too_long(file: SourceFile, number: int) -> Flaw:
    where = f"{file.name}, line {number}"
    return Flaw("line too long", f"{where}: has {LONGEST_LINE:,} characters or more. Break it into several records")


class _Decoder:
    """Decodes lines of one file, and remembers what they proved about its encoding."""

    def __init__(self, file: SourceFile, named: str | None) -> None:
        self._file, self._named = file, named
        self._is_utf8 = self._is_fallback = False

    def __call__(self, number: int, line: bytes) -> str | Flaw:
        if self._named is not None:
            return self._decode_named(self._named, number, line)
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            return self._fall_back(number, line, error)
        self._is_utf8 = self._is_utf8 or not line.isascii()
        return text.removeprefix("\ufeff") if number == 1 else text

    def _place(self, number: int, line: bytes, error: UnicodeDecodeError) -> str:
        return f"{self._file.name}, line {number}: byte {error.start + 1} of the line (0x{line[error.start]:02x})"

    def _decode_named(self, name: str, number: int, line: bytes) -> str | Flaw:
        try:
            text = line.decode(name)
        except UnicodeDecodeError as error:
            what = self._place(number, line, error)
            return Flaw(f"not {name}", f"{what} is not {name}, which encoding: names")
        return text.removeprefix("\ufeff") if number == 1 else text

    def _fall_back(self, number: int, line: bytes, error: UnicodeDecodeError) -> str | Flaw:
        what = self._place(number, line, error)
        if self._is_utf8 and not self._is_fallback:
            return Flaw("not UTF-8", f"{what} is not UTF-8, and the lines before it are. Save the file as UTF-8")
        try:
            text = line.decode(FALLBACK)
        except UnicodeDecodeError:
            text = ""
        if not text or is_foreign(text):
            raise DataError(
                f"{what} is not UTF-8, nor does the line look like Windows-1252. Name the file's encoding with "
                "encoding:, such as cp1251, shift_jis or gb18030, or save it as UTF-8."
            )
        if not self._is_fallback:
            self._file.tell(f"{what} is not UTF-8, so the file is read as Windows-1252 (cp1252). {ANOTHER}")
        self._is_fallback = True
        return text


def is_foreign(text: str) -> bool:
    """Whether so many letters are beyond ASCII that another alphabet was meant."""
    letters = [letter for letter in text if letter.isalpha() or letter > "\x7f"]
    beyond = sum(letter > "\x7f" for letter in letters)
    return beyond >= FEWEST and beyond > FOREIGN * len(letters)


def _wide(start: bytes, named: str | None) -> str | None:
    """Return the encoding of a file whose line ends are no single bytes, or None."""
    if named is not None:
        return named if codecs.lookup(named).name.startswith(("utf-16", "utf-32")) else None
    for mark, name in _MARKS:
        if start.startswith(mark):
            return name
    sample = start[: len(start) // 2 * 2][:4096]
    half = len(sample) // 2
    for name, zeros, others in (("utf-16-le", sample[1::2], sample[::2]), ("utf-16-be", sample[::2], sample[1::2])):
        if half >= 4 and zeros.count(0) > 0.4 * half and others.count(0) == 0:
            return name
    return None


def _wide_lines(stream: io.BufferedReader, encoding: str, longest: int) -> Iterator[str]:
    with io.TextIOWrapper(stream, encoding, newline="\n") as lines:
        for number, line in enumerate(iter(lambda: lines.readline(longest), "")):
            yield line if number else line.removeprefix("\ufeff")


def _is_of_old_mac(start: bytes) -> bool:
    """Whether carriage returns end lines: a file has no line feed where it begins."""
    return b"\r" in start and b"\n" not in start


def _lines(stream: io.BufferedReader, start: bytes, longest: int, *, cut: bool) -> Iterator[bytes]:
    """Yield lines with their ends; one that reaches `longest`, or may be cut, in parts. -1 is no limit."""
    if _is_of_old_mac(start):
        yield from _lines_of_old_macs(stream, longest)
    elif not cut:
        yield from iter(lambda: stream.readline(longest), b"")
    else:
        rest = b""
        while block := rest + stream.readline(LONG):
            end = len(block)
            if end >= LONG:  # a character of UTF-8 may be cut: it begins with the last byte that continues none
                end = next((place for place in range(end - 1, end - 4, -1) if block[place] & 0xC0 != 0x80), end)
            yield block[:end]
            rest = block[end:]


def _lines_of_old_macs(stream: io.BufferedReader, longest: int) -> Iterator[bytes]:
    rest = b""
    while block := stream.read1(BUFFER):
        *lines, rest = (rest + block).split(b"\r")
        yield from (line + b"\r" for line in lines)
        if len(rest) >= longest > 0:
            yield rest
            rest = b""
    if rest:
        yield rest
