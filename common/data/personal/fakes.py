"""Made-up values that look like the personal data whose place they take, and that belong to nobody.

Usage: `fake("+49 30 901820", "phone", seed=0)`.

Lengths, blanks, signs and capital letters stay. The same value becomes the same fake everywhere, so that a conversation
still makes sense. Mail and IP addresses are of the ranges that are reserved for documentation (RFC 2606, 5737, 3849);
check digits of other numbers are wrong, and phone numbers valid nowhere. It is no anonymisation: who knows the seed
can test a guess.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Callable, Iterator, Mapping

TRIES = 64
_HOSTS = ("example.com", "example.org", "example.net")
_FOUR = ("192.0.2", "198.51.100", "203.0.113")
_NAMES = ("Alex", "Robin", "Sam", "Kim", "Noor", "Toni", "Jo", "Chris")
_SURNAMES = ("Berg", "Lane", "Costa", "Novak", "Silva", "Moor", "Stone", "Kaya")


def fake(value: str, kind: str, seed: int = 0, is_real: Callable[[str], bool] = lambda value: False) -> str:
    """Return another value of the same form; one that `is_real` says yes to is made again."""
    found = value
    for attempt in range(TRIES):
        numbers = _numbers(f"{seed}|{kind}|{attempt}|{value}")
        found = _MAKERS.get(kind, _like)(value, numbers)
        if found != value and not is_real(found):
            return found
    return "".join("0" if sign.isdigit() else sign for sign in found)


def _numbers(key: str) -> Iterator[int]:
    """Yield numbers from 0 to 255 that follow from a key, without end."""
    block = 0
    while True:
        yield from hashlib.sha256(f"{key}|{block}".encode()).digest()
        block += 1


def _like(value: str, numbers: Iterator[int]) -> str:
    """Change every digit and letter, each into one of its own kind."""
    return "".join(_sign(sign, numbers) for sign in value)


def _sign(sign: str, numbers: Iterator[int]) -> str:
    if sign.isdigit():
        return str(next(numbers) % 10)
    letters = string.ascii_uppercase if sign.isupper() else string.ascii_lowercase
    return letters[next(numbers) % 26] if sign.isalpha() else sign


def _mail(value: str, numbers: Iterator[int]) -> str:
    local = next((value.partition(at)[0] for at in ("@", "\uff20") if at in value), "name")
    return f"{_like(local, numbers)}@{_HOSTS[next(numbers) % 3]}"


def _ip(value: str, numbers: Iterator[int]) -> str:
    if ":" in value:
        return f"2001:db8::{next(numbers):x}{next(numbers):02x}"
    return f"{_FOUR[next(numbers) % 3]}.{next(numbers)}"


def _phone(value: str, numbers: Iterator[int]) -> str:
    """Keep the country code, or as much as it may have; change the rest."""
    digits = sum(map(str.isdigit, value))
    kept = min(3, digits // 3) if value.lstrip("(")[:1] == "+" else 1
    found = []
    for sign in value:
        changed = str(next(numbers) % 10) if sign.isdigit() and kept <= 0 else sign
        kept -= sign.isdigit()
        found.append(changed)
    return "".join(found)


def _iban(value: str, numbers: Iterator[int]) -> str:
    return value[:2] + _like(value[2:], numbers)


def _name(value: str, numbers: Iterator[int]) -> str:
    parts = value.split()
    names = [_NAMES[next(numbers) % 8]] + [_SURNAMES[next(numbers) % 8] for _ in parts[1:]]
    return " ".join(names)


_MAKERS: Mapping[str, Callable[[str, Iterator[int]], str]] = {
    "mail": _mail, "ip": _ip, "phone": _phone, "iban": _iban, "name": _name,
}  # fmt: skip
