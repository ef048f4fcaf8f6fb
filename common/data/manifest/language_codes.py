"""Which language codes a source may have, and which of them an answer can be checked in.

Usage: `problems = language_problem("zh-Hans", answered=False)`; an empty list says that the code is right.

It identifies nothing itself: that is `common.evaluation.languages`.
"""

from __future__ import annotations

import re

from common.errors import did_you_mean

# What py3langid 0.4 tells apart, as its model takes seconds to load; a test compares the two.
_IDENTIFIED = """
    ace af am an ar ary arz as az ba bcl be bg bn br bs ca crh cs cy da de dz el en eo es et eu ext fa fi fo fr
    fuv fy ga gcf gcr gd gl gom grc gu gug guw ha hbo he hi hr ht hu hy id ig is it ja jv ka kab kik kk km kn ko
    ku ky la lb lg lij ln lo lt ltg lv mg mk ml mn mr ms mt my ne nl nn no nso oc om or pa pcm pl ps pt qu ro ru
    rw sa sdh se si sk sl sn so sq sr st sv sw ta te tg th tk tl tr tt ug uk ur uz uzs vec vi vo wa wuu xh yo yue
    zh zu
"""
IDENTIFIED = frozenset(_IDENTIFIED.split())
_CODE = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})*")


def language_problem(code: str, *, answered: bool) -> list[str]:
    """Return what is wrong with a code, if anything; answers are only checked in languages that can be identified."""
    if not _CODE.fullmatch(code):
        hint = f"write {code.lower()}" if _CODE.fullmatch(code.lower()) else "its name is no code"
        return [f"language is {code!r}; expected an ISO 639 code in small letters, as en, sw or zh-hans; {hint}"]
    primary = code.partition("-")[0]
    if answered and primary not in IDENTIFIED:
        hint = did_you_mean(primary, IDENTIFIED)
        near = hint if "Did you mean" in hint else ""
        return [f"language is {code!r}, which py3langid cannot identify, so no answer could be checked.{near}"]
    return []
