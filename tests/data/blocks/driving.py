"""Put rows through one block as cleaning does, and texts to put through.

Usage: `applied("c4", rows_of(["a text"]), tmp_path, min_num_sentences=1)`.

`generated` makes documents of every kind that the rules of quality are about; the same ones for a seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from common.config.blocks import BlockContext, Drop, Row, Task, block_of

PROSE = {
    "en": "The old harbour was rebuilt after the storm, and the work took nearly three years. Most of the stone came "
    "from a quarry to the north of the town. Fishermen used to say that the new wall would not last. They were "
    "wrong about that, as it has stood for more than a century. Visitors walk along it every summer, and "
    "children jump from its steps. In winter the waves still reach the lamps at the far end.",
    "de": "Der alte Hafen wurde nach dem Sturm wieder aufgebaut, und die Arbeit dauerte fast drei Jahre. Die meisten "
    "Steine kamen aus einem Bruch im Norden der Stadt. Die Fischer sagten, dass die neue Mauer nicht lange "
    "halten werde. Damit hatten sie nicht recht, denn sie steht seit mehr als hundert Jahren. Im Sommer gehen "
    "viele G\xe4ste auf ihr spazieren, und Kinder springen von den Stufen. Im Winter reichen die Wellen noch bis "
    "zu den Laternen.",
    "sw": "Bandari ya zamani ilijengwa upya baada ya dhoruba, na kazi hiyo ilichukua karibu miaka mitatu. Mawe mengi "
    "yalitoka katika machimbo ya kaskazini mwa mji. Wavuvi walisema kwamba ukuta mpya hautadumu kwa muda mrefu. "
    "Walikosea kwa sababu umesimama kwa zaidi ya miaka mia moja. Wageni hutembea juu yake kila mwaka, na watoto "
    "huruka kutoka kwenye ngazi zake. Wakati wa baridi mawimbi bado hufika kwenye taa za mwisho.",
    "zh": "\u65e7\u6e2f\u53e3\u5728\u66b4\u98ce\u96e8\u4e4b\u540e\u91cd\u5efa\uff0c\u5de5\u7a0b\u6301\u7eed"
    "\u4e86\u5c06\u8fd1\u4e09\u5e74\u3002\u5927\u90e8\u5206\u77f3\u5934\u6765\u81ea\u57ce\u5e02\u5317"
    "\u8fb9\u7684\u91c7\u77f3\u573a\u3002\u6e14\u6c11\u4eec\u5e38\u8bf4\u65b0\u5899\u4e0d\u4f1a\u6301"
    "\u4e45\u3002\u4ed6\u4eec\u9519\u4e86\uff0c\u56e0\u4e3a\u5b83\u5df2\u7ecf\u5c79\u7acb\u4e86\u4e00"
    "\u767e\u591a\u5e74\u3002\u6bcf\u5e74\u590f\u5929\u6e38\u5ba2\u90fd\u4f1a\u6cbf\u7740\u5b83\u6563"
    "\u6b65\u3002\u51ac\u5929\u6d77\u6d6a\u4ecd\u7136\u53ef\u4ee5\u6253\u5230\u8fdc\u5904\u7684\u8def"
    "\u706f\u3002",
}  # fmt: skip


def rows_of(texts: Iterable[str], **more: Any) -> list[Row]:
    """Return text rows of one source."""
    return [{"text": text, "source": "web", **more} for text in texts]


def context_of(folder: Path, **more: Any) -> BlockContext:
    """Return the context of a block whose own files are in a folder."""
    return BlockContext(folder, "cpt", **more)


def applied(
    name: str, rows: Sequence[Row], folder: Path, *, tasks: int = 1, data: Path | None = None, **settings: Any
) -> list[Any]:
    """Return what a block with these settings makes of each row; one of two passes gets the rows in some tasks."""
    block, context = block_of(name), context_of(folder, data=data)
    given = block.settings.model_validate(settings)
    if block.start is not None:
        return [block.start(given, context)(row) for row in rows]
    assert block.look is not None
    size = -(-len(rows) // tasks)
    parts = [rows[number * size : (number + 1) * size] for number in range(tasks)]
    looked = [
        list(block.look(given, context).look(Task(number, tasks), iter(part))) for number, part in enumerate(parts)
    ]
    block.look(given, context).decide(tasks)
    judges = [block.look(given, context).judge(Task(number, tasks)) for number in range(tasks)]
    return [judges[number](place, row) for number, part in enumerate(looked) for place, row in enumerate(part)]


def one(name: str, text: str, folder: Path, *, language: str | None = "en", **settings: Any) -> Any:
    """Return what a block makes of one text."""
    row = rows_of([text], **({"language": language} if language else {}))
    return applied(name, row, folder, **settings)[0]


def reason(found: Row | Drop) -> str | None:
    """Return why a row was dropped, or None."""
    return found.reason if isinstance(found, Drop) else None


def generated(number: int, seed: int = 7) -> list[str]:
    """Return documents of sentences and of what quality rules look for, in every mixture."""
    draw = random.Random(seed)
    words = PROSE["en"].replace(".", "").replace(",", "").split()
    kinds: tuple[Callable[[], str], ...] = (
        lambda: " ".join(draw.choices(words, k=draw.randint(4, 18))) + draw.choice([".", "!", "?", "", "..."]),
        lambda: "- " + " ".join(draw.choices(words, k=draw.randint(1, 4))),
        lambda: draw.choice(["Home", "1, 2, 3, 4", "### | ###", "x = {a[1]}", "lorem ipsum", "#tag #tag", "\u2026"]),
        lambda: " ".join(["the same words again"] * draw.randint(2, 6)) + ".",
        lambda: draw.choice(["antidisestablishmentarianism " * 5, "a b c d e", "We use cookies.", "Try javascript."]),
        lambda: "It is cold.[1] He left[citation needed] early.",
    )  # fmt: skip
    documents = []
    for _ in range(number):
        weights = [draw.choice([0, 1, 5]) for _ in kinds]
        chosen = draw.choices(kinds, weights if any(weights) else None, k=draw.randint(1, 25))
        documents.append(draw.choice(["\n", "\n\n", " "]).join(kind() for kind in chosen))
    return documents
