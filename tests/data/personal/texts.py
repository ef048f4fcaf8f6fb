"""Texts with planted personal data of our own making, in many forms and surroundings, and numbers that only look so.

Usage: `for text, spans in planted("phone", 500, seed=0): ...`; `for text in lookalikes(500, seed=0): ...`.

Every value is generated. `spans` are the places that have to be found, all of one kind.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterator

Span = tuple[int, int]
Maker = Callable[[random.Random], tuple[str, str]]  # -> a value, and words that may stand before it
WORDS = [
    "the",
    "report",
    "was",
    "sent",
    "to",
    "our",
    "office",
    "on",
    "Monday",
    "and",
    "nobody",
    "asked",
    "for",
    "it",
    "again",
    "until",
    "summer",
    "came",
]
FRAMES = (
    "{cue} {value}", "{cue} {value}.", "{words}. {cue} {value}, {words}.", "{words}\n{cue} {value}\n{words}",
    "| {cue} | {value} | {words} |", '{{"{cue}": "{value}", "n": 3}}', "{words} ({cue} {value}) {words}.",
    "<td>{cue}</td><td>{value}</td>", "{cue} {value}; {words}", "{words} {cue}\t{value}\t{words}",
)  # fmt: skip
HOSTS = ("mail.kontor-nord.de", "gmail.com", "uni.edu", "firm.co.uk", "post.ru", "почта.рф", "bücher.at", "a-b.museum")


def digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choices(string.digits, k=count))


def luhn(body: str) -> str:
    """Add the check digit of ISO/IEC 7812."""
    total = sum(sum(divmod(int(d) * (1 + (place % 2 == 0)), 10)) for place, d in enumerate(reversed(body)))
    return body + str(-total % 10)


def mail(rng: random.Random) -> tuple[str, str]:
    first, last = (
        rng.choice(["jane", "J", "li", "müller", "o'hara", "ivan_77", "x"]),
        rng.choice(["doe", "k", "smith-9"]),
    )
    local = rng.choice([first, f"{first}.{last}", f"{first}{digits(rng, 3)}", f"{last}+news", f"{first}_{last}"])
    host = rng.choice(HOSTS)
    at, dot = rng.choice([("@", ".")] * 6 + [(" [at] ", " [dot] "), ("(at)", "."), ("[at]", "[.]"), ("&#64;", ".")])
    return f"{local}{at}{host.replace('.', dot)}", rng.choice(
        ["mail:", "mailto:", "write to", "Kontakt", "✉", "From: A <"]
    )


def ip(rng: random.Random) -> tuple[str, str]:
    if rng.random() < 0.3:
        groups = [f"{rng.randrange(1, 65536):x}" for _ in range(6)]
        full = ":".join(["2a02", f"{rng.randrange(256, 65536):x}", *groups])
        short = ":".join(["2607", "f8b0", *groups[:2]]) + "::" + groups[3]
        return rng.choice([full, short, full.upper()]), rng.choice(["host", "IPv6", "from", "addr", "AAAA"])
    while True:
        parts = [rng.randrange(1, 224), *(rng.randrange(256) for _ in range(3))]
        if parts[0] not in (10, 100, 127, 169, 172, 192, 198, 203):
            sign = "[.]" if rng.random() < 0.1 else "."
            return sign.join(map(str, parts)), rng.choice(["IP", "from", "address", "client", "ping", "//"])


def phone(rng: random.Random) -> tuple[str, str]:
    import phonenumbers as lib

    region = rng.choice(
        ["US", "US", "GB", "DE", "FR", "ES", "IT", "NL", "BR", "IN", "CN", "JP", "RU", "AU", "PL", "ZA"]
    )
    kind = rng.choice([lib.PhoneNumberType.MOBILE, lib.PhoneNumberType.FIXED_LINE])
    number = lib.example_number_for_type(region, kind)
    assert number is not None, region
    example = lib.national_significant_number(number)
    while True:
        number = lib.parse(example[:-4] + digits(rng, 4), region)
        if lib.is_valid_number(number):
            break
    formats = lib.PhoneNumberFormat
    international = lib.format_number(number, formats.INTERNATIONAL)
    forms = [international, international.replace(" ", "-"), lib.format_number(number, formats.E164)]
    if region not in ("AU", "PL", "ZA"):
        national = lib.format_number(number, formats.NATIONAL)
        forms += [national, national, national.replace(" ", "\u00a0")]
    cue = rng.choice(
        ["Tel.", "phone:", "call", "Fax", "mobile", "Telefon:", "tél :", "teléfono", "电话", "тел.", "☎", "WhatsApp"]
    )
    return rng.choice(forms), cue


def bare_phone(rng: random.Random) -> tuple[str, str]:
    """American and German numbers in their usual form, with no word that says what they are."""
    area, rest = rng.choice(["212", "415", "617", "312", "202"]), f"{rng.randrange(200, 999)}-{digits(rng, 4)}"
    if rest.startswith(("211", "311", "411", "511", "611", "711", "811", "911")):
        rest = f"246-{digits(rng, 4)}"
    german = f"0{rng.choice(['30', '40', '89'])}{rng.choice([' ', '/'])}{rng.randrange(2, 9)}{digits(rng, 6)}"
    return rng.choice([f"({area}) {rest}", f"{area}-{rest}", f"1-{area}-{rest}", german]), rng.choice(
        ["Anna", "or", "office"]
    )


def iban(rng: random.Random) -> tuple[str, str]:
    country, length = rng.choice([("DE", 18), ("AT", 16), ("CH", 17), ("PL", 24), ("GB", 14), ("LT", 16), ("DK", 14)])
    while True:
        body = (rng.choice(["NWBK", "BARC"]) if country == "GB" else "") + digits(rng, length)
        shifted = "".join(str(int(sign, 36)) for sign in body + country + "00")
        value = f"{country}{98 - int(shifted) % 97:02d}{body}"
        from stdnum import iban as lib

        if lib.is_valid(value):  # some countries have check digits of their own
            break
    grouped = " ".join(value[i : i + 4] for i in range(0, len(value), 4))
    return rng.choice([value, grouped, grouped]), rng.choice(["IBAN", "account", "Konto:", "pay to", "transfer"])


def card(rng: random.Random) -> tuple[str, str]:
    head, length = rng.choice([("4", 16), ("51", 16), ("2345", 16), ("6011", 16), ("37", 15), ("3566", 16), ("36", 14)])
    value = luhn(head + digits(rng, length - len(head) - 1))
    cuts = {16: (4, 8, 12), 15: (4, 10), 14: (4, 10)}[length]
    sign = rng.choice(["", " ", "-"])
    parts = [value[a:b] for a, b in zip((0, *cuts), (*cuts, length), strict=True)]
    return sign.join(parts), rng.choice(["card", "Visa", "paid with", "CC:", "number"])


def ssn(rng: random.Random) -> tuple[str, str]:
    area = rng.choice([rng.randrange(1, 666), rng.randrange(667, 900)])
    groups = f"{area:03d}", f"{rng.randrange(1, 100):02d}", f"{rng.randrange(1, 10000):04d}"
    if rng.random() < 0.3:
        return rng.choice([" ", ""]).join(groups), rng.choice(["SSN", "SSN:", "social security number"])
    return "-".join(groups), rng.choice(["SSN", "of", "id", "applicant"])


def national_id(rng: random.Random) -> tuple[str, str]:
    year, month, day = rng.randrange(40, 99), rng.randrange(1, 13), rng.randrange(1, 28)
    number = rng.randrange(10**8)
    nir = f"{rng.randrange(1, 3)}{year}{month:02d}{rng.randrange(10, 90)}{rng.randrange(10**5, 9 * 10**5)}"
    ric = f"110105{1900 + year}{month:02d}{day:02d}{rng.randrange(1000):03d}"
    check = "10X98765432"[
        sum(int(d) * w for d, w in zip(ric, (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2), strict=True)) % 11
    ]
    cpf = digits(rng, 8) + "1"
    for weights in (range(10, 1, -1), range(11, 1, -1)):
        rest = sum(int(d) * w for d, w in zip(cpf, weights, strict=True)) % 11
        cpf += str(0 if rest < 2 else 11 - rest)
    birth = f"{day:02d}{month:02d}{year}{rng.randrange(2, 899):03d}"
    swedish = luhn(f"{year}{month:02d}{day:02d}{rng.randrange(1, 980):03d}")
    polish = f"{year}{month:02d}{day:02d}{digits(rng, 4)}"
    polish += str(-sum(int(d) * w for d, w in zip(polish, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3), strict=True)) % 10)
    return rng.choice([
        (f"{number:08d}{'TRWAGMYFPDXBNJZSQVHLCKE'[number % 23]}", "DNI"),
        (f"{nir}{97 - int(nir) % 97:02d}", "sécu"),
        (f"{ric}{check}", "身份证"),
        (f"{cpf[:3]}.{cpf[3:6]}.{cpf[6:9]}-{cpf[9:]}", "inscrito"),
        (cpf, "CPF"),
        (f"{birth[:6]}-{birth[6:]}{'0123456789ABCDEFHJKLMNPRSTUVWXY'[int(birth) % 31]}", "hetu"),
        (f"{swedish[:6]}-{swedish[6:]}", "född"),
        (polish, "PESEL"),
    ])  # fmt: skip


MAKERS: dict[str, Maker] = {
    "mail": mail, "ip": ip, "phone": phone, "iban": iban, "card": card, "ssn": ssn, "national_id": national_id,
}  # fmt: skip


def planted(kind: str, count: int, seed: int) -> Iterator[tuple[str, Span]]:
    """Yield texts with one value of a kind each, and its place."""
    rng = random.Random(f"{kind}{seed}")
    for _ in range(count):
        maker = bare_phone if kind == "phone" and rng.random() < 0.25 else MAKERS[kind]
        value, cue = maker(rng)
        frame = rng.choice(FRAMES)
        first = frame.index("{value}")
        head = frame[:first].format(cue=cue, words=" ".join(rng.sample(WORDS, 6)))
        tail = frame[first + len("{value}") :].format(cue=cue, words=" ".join(rng.sample(WORDS, 6)))
        yield head + value + tail, (len(head), len(head) + len(value))


def lookalikes(count: int, seed: int) -> Iterator[str]:
    """Yield texts without any personal data: numbers and signs of other kinds, in the same surroundings."""
    rng = random.Random(f"no{seed}")
    for number in range(count):
        value, cue = _LOOKALIKES[number % len(_LOOKALIKES)](rng)
        yield rng.choice(FRAMES).format(cue=cue, value=value, words=" ".join(rng.sample(WORDS, 6)))


def _small(rng: random.Random, parts: int, most: int = 30) -> str:
    return ".".join(str(rng.randrange(most)) for _ in range(parts))


def _isbn(rng: random.Random) -> str:
    body = f"978{digits(rng, 9)}"
    body += str(-sum(int(d) * (1 + 2 * (place % 2)) for place, d in enumerate(body)) % 10)
    return rng.choice([body, f"{body[:3]}-{body[3]}-{body[4:7]}-{body[7:12]}-{body[12]}"])


_LOOKALIKES: tuple[Maker, ...] = (
    lambda rng: (_small(rng, 4), rng.choice(["version", "v", "release", "Section", "since"])),
    lambda rng: (_small(rng, 5, 300), "OID"),
    lambda rng: (f"Chrome/{rng.randrange(60, 200)}.0.{rng.randrange(255)}.{rng.randrange(255)}", "agent"),
    lambda rng: (_isbn(rng), rng.choice(["ISBN", "ISBN-13:"])),
    lambda rng: (f"0-{digits(rng, 3)}-{digits(rng, 5)}-{rng.randrange(10)}", "ISBN-10"),
    lambda rng: (f"{rng.randrange(1900, 2100)}-{rng.randrange(1, 13):02d}-{rng.randrange(1, 29):02d}", "on"),
    lambda rng: (f"{rng.randrange(1, 29):02d}.{rng.randrange(1, 13):02d}.{rng.randrange(1900, 2100)}", "am"),
    lambda rng: (
        f"20{digits(rng, 2)}-0{rng.randrange(1, 10)}-1{digits(rng, 1)}T1{digits(rng, 1)}:30:{rng.randrange(10, 60)}Z",
        "at",
    ),
    lambda rng: (
        f"10.{rng.randrange(1000, 9999)}/j.{rng.choice(['cell', 'ab'])}.20{digits(rng, 2)}.{digits(rng, 6)}",
        "doi:",
    ),
    lambda rng: (f"1{digits(rng, 9)}", rng.choice(["timestamp", "epoch"])),
    lambda rng: (f"1{digits(rng, 12)}", rng.choice(["ms", "time"])),
    lambda rng: (f"{rng.getrandbits(160):040x}", "commit"),
    lambda rng: (f"{rng.getrandbits(128):032x}"[:32], "md5"),
    lambda rng: (
        f"{rng.choice('$€£')}{rng.randrange(1, 999)},{digits(rng, 3)},{digits(rng, 3)}.{digits(rng, 2)}",
        "price",
    ),
    lambda rng: (f"{rng.randrange(1, 999)} {digits(rng, 3)} {digits(rng, 3)} €", "Umsatz"),
    lambda rng: (f"{rng.randrange(50, 99999)}-{digits(rng, 2)}-{rng.randrange(10)}", "CAS"),
    lambda rng: (f"{rng.randrange(1, 50)} U.S.C. § {digits(rng, 4)}", "under"),
    lambda rng: (f"22-{digits(rng, 4)}.{digits(rng, 2)}", "§"),
    lambda rng: (f"{rng.randrange(100, 600)} F.3d {rng.randrange(100, 1500)}, {rng.randrange(100, 1500)}", "see"),
    lambda rng: (f"{rng.randrange(1990, 2024)} {rng.randrange(1990, 2024)} {rng.randrange(1990, 2024)}", "years"),
    lambda rng: (f"NCT0{digits(rng, 7)}", "trial"),
    lambda rng: (f"icon-{rng.randrange(9)}@2x.png", "image"),
    lambda rng: (f"lodash@4.{rng.randrange(30)}.{rng.randrange(30)}", "install"),
    lambda rng: (f"git@host{rng.randrange(9)}.org:team/repo.git", "clone"),
    lambda rng: (f"@user{rng.randrange(99)}", "thanks"),
    lambda rng: (f"https://u:p{digits(rng, 2)}@host.org/x", "fetch"),
    lambda rng: (f"192.168.{rng.randrange(255)}.{rng.randrange(255)}", "host"),
    lambda rng: (f"std::vec{rng.randrange(9)}::fill", "call"),
    lambda rng: (f"{rng.randrange(24):02d}:{rng.randrange(60):02d}:{rng.randrange(60):02d}", "at"),
    lambda rng: (":".join(f"{rng.randrange(256):02x}" for _ in range(6)), "MAC"),
    lambda rng: (f"0.{digits(rng, 16)}", "p ="),
    lambda rng: (f"3.1.{rng.randrange(1, 9)}.{rng.randrange(1, 50)}", "EC"),
    lambda rng: (f"{digits(rng, 5)}-{digits(rng, 4)}", "NY"),
    lambda rng: (f"1{digits(rng, 15)}", "order"),
    lambda rng: (f"{rng.randrange(-90, 90)}.{digits(rng, 6)}, {rng.randrange(-180, 180)}.{digits(rng, 6)}", "at"),
)
