"""Keeps the names of control tokens that occur in data as the text that they are.

Usage: `reader = reader_of(tokenizer)`; `ids = reader.encode([reader.mark(text)])`.

A tokenizer reads the name of a control token as the token wherever it stands, so a question about ChatML could end its
own turn. Data are marked before a template writes them, and what is marked is encoded as ordinary text. Without such a
name nothing differs. What a source asks for by `control_tokens` stays a token.

Control tokens are the tokenizer's special tokens, and its other added tokens that the chat template itself writes, save
plain words. Tags in pairs that are not special, such as <think> and </think>, are the assistant's own: they stay tokens
in its turns, and are text everywhere else. Other added tokens are ordinary content.
"""

from __future__ import annotations

import functools
import json
import re
import secrets
import weakref
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from common.errors import DataError, did_you_mean
from common.models.limits import in_time

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

READ_AS_TEXT = "control tokens read as text"
MARK = "\U0010fffd"  # of the last plane of private use; the character behind it says what it stands for
_FIRST = 0x100000
_TAG = re.compile(r"([<\[]\|?)(/?)([^/]+)")
_NAMELESS = re.compile(r"[\w\s]+")  # words and blanks, which a template writes for their own sake
_readers: weakref.WeakKeyDictionary[Any, tuple[Any, ControlTokens]] = weakref.WeakKeyDictionary()


def reader_of(tokenizer: PreTrainedTokenizerBase) -> ControlTokens:
    """Return what reads data with this tokenizer, and a new one once its template or its tokens change."""
    state = (str(tokenizer.chat_template), len(tokenizer), str(tokenizer.special_tokens_map))
    found = _readers.get(tokenizer)
    if found is None or found[0] != state:
        found = _readers[tokenizer] = (state, ControlTokens(tokenizer))
    return found[1]


class ControlTokens:
    """The control tokens of a tokenizer, and how texts that name them are encoded."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = weakref.proxy(tokenizer)  # the reader must not keep what it belongs to
        added = {str(token.content): bool(token.special) for token in tokenizer.added_tokens_decoder.values()}
        template = tokenizer.chat_template or ""
        template = template if isinstance(template, str) else "\n".join(template.values())
        special = {name for name, is_special in added.items() if is_special} | set(tokenizer.all_special_tokens)
        written = {name for name in added if name in template and not _NAMELESS.fullmatch(name)}
        self.names = frozenset(name for name in special | written if name)
        self.own = frozenset(name for name in written - special if _partner(name) in added)
        self._ordered = sorted(self.names, key=lambda name: (-len(name), name))  # of two, the longer one is read
        self._found = re.compile(_any_of([*self._ordered, MARK]))
        self._marks = {name: MARK + chr(_FIRST + place) for place, name in enumerate(self._ordered)} | {MARK: MARK * 2}
        self._read = {mark: name for name, mark in self._marks.items()}

    def mark(self, text: str, asked: Collection[str] = ()) -> str:
        """Return a text with each name of a control token replaced by a mark, those that are asked for excepted."""
        if self._found.search(text) is None:
            return text
        return self._found.sub(lambda found: found[0] if found[0] in asked else self._marks[found[0]], text)

    def unmark(self, text: str) -> str:
        """Return a text as it was before it was marked."""
        if MARK not in text:
            return text
        return re.sub(f"{MARK}.", lambda found: self._read.get(found[0], found[0]), text, flags=re.DOTALL)

    def encode(self, texts: Sequence[str], *, whole: bool = False) -> list[list[int]]:
        """Return marked texts as ids: what is marked as text, every other control token as itself.

        `whole` gives each text what the tokenizer puts around one. Raises DataError where it takes for ever.
        """
        return in_time(self._tokenizer, lambda: self._encode(texts, whole), texts)

    def _encode(self, texts: Sequence[str], whole: bool) -> list[list[int]]:
        plain = [text for text in texts if MARK not in text]
        ids = iter(self._encode_plain(plain, whole) if plain else ())
        return [next(ids) if MARK not in text else self._encode_marked(text, whole) for text in texts]

    def _encode_plain(self, texts: list[str], whole: bool) -> list[list[int]]:
        """Return texts as ids. What the call of a fast tokenizer makes besides, which nobody reads, is left out."""
        from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

        kind = self._tokenizer.__class__
        ways = (kind.__call__, getattr(kind, "_encode_plus", None))
        if ways != (PreTrainedTokenizerBase.__call__, PreTrainedTokenizerFast._encode_plus):  # it has one of its own
            found: list[list[int]] = self._tokenizer(texts, add_special_tokens=whole)["input_ids"]
            return found
        core = self._tokenizer.backend_tokenizer
        if core.truncation is not None:
            core.no_truncation()
        if core.padding is not None:
            core.no_padding()
        if core.encode_special_tokens != self._tokenizer.split_special_tokens:
            core.encode_special_tokens = self._tokenizer.split_special_tokens
        return [encoded.ids for encoded in core.encode_batch_fast(texts, add_special_tokens=whole)]

    def require(self, asked: Collection[str], source: str) -> None:
        """Check that a source asks for tokens that there are. Raises DataError."""
        known = self._tokenizer.get_added_vocab()
        for name in asked:
            if name not in known and name not in self.names:
                raise DataError(
                    f"Source '{source}': control_tokens names {name!r}, which is no added token of this tokenizer."
                    f"{did_you_mean(name, known)} Write it as the tokenizer does, or add it by model.control_tokens."
                )

    def _encode_marked(self, text: str, whole: bool) -> list[int]:
        if not getattr(self._tokenizer, "is_fast", False):
            return self._encode_in_pieces(text, whole)
        core, aliases = self._renamed

        def read(found: re.Match[str]) -> str:
            return self._read[found[0]] if found[0] in self._read else aliases[found[0]]

        renamed = self._marked_or_named.sub(read, text)
        return list(core.encode_batch([renamed], add_special_tokens=whole)[0].ids)  # lets other threads run meanwhile

    @functools.cached_property
    def _marked_or_named(self) -> re.Pattern[str]:
        return re.compile(f"{MARK}.|{_any_of(self._ordered)}", re.DOTALL)

    @functools.cached_property
    def _renamed(self) -> tuple[Any, dict[str, str]]:
        """Return the tokenizer's core with its control tokens under names that nobody can guess, and these names.

        It reads their usual names as text, and the others as the tokens, with all that the tokenizer does around them.
        """
        from tokenizers import Tokenizer

        secret = secrets.token_hex(8)
        aliases = {name: f"<{secret}-{place}>" for place, name in enumerate(self._ordered)}
        facts = json.loads(self._tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
        for token in facts["added_tokens"]:
            token["content"] = aliases.get(token["content"], token["content"])
        _rename(facts["model"], aliases)
        core = Tokenizer.from_str(json.dumps(facts))
        for name, alias in aliases.items():
            assert core.token_to_id(alias) == self._tokenizer.convert_tokens_to_ids(name), name
        return core, aliases

    @functools.cached_property
    def _named(self) -> re.Pattern[str]:
        return re.compile(f"({_any_of(self._ordered)})")

    def _encode_in_pieces(self, text: str, whole: bool) -> list[int]:
        """Encode what stands between control tokens by itself, for a tokenizer that is written in Python."""
        ids = self._tokenizer("", add_special_tokens=whole)["input_ids"]
        pieces = self._named.split(text)
        known = {self._tokenizer.convert_tokens_to_ids(name) for name in self.names}
        for place, piece in enumerate(pieces):
            if place % 2:
                ids.append(self._tokenizer.convert_tokens_to_ids(piece))
            elif piece:
                options = {"add_special_tokens": False, "split_special_tokens": True}
                read = self._tokenizer(self.unmark(piece), **options)["input_ids"]
                if known & set(read):
                    raise DataError(f"This tokenizer cannot read {self.unmark(piece)[:60]!r} as text. Leave it out.")
                ids += read
        return list(ids)


def _any_of(names: Sequence[str]) -> str:
    """Return a pattern that finds the longest of some names, as a tree: a search then takes no longer for thousands."""
    tree: dict[str, Any] = {}
    for name in names:
        node = tree
        for character in [*name, ""]:
            node = node.setdefault(character, {})

    def pattern(node: dict[str, Any]) -> str:
        ways = [re.escape(character) + pattern(below) for character, below in node.items() if character]
        within = ways[0] if len(ways) == 1 and "" not in node else f"(?:{'|'.join(ways)})" if ways else ""
        return within + ("?" if ways and "" in node else "")

    return pattern(tree) or "(?!)"


def _partner(name: str) -> str:
    """Return the tag that closes or opens what another one opens or closes, as </think> for <think>."""
    found = _TAG.fullmatch(name)
    return f"{found[1]}{'' if found[2] else '/'}{found[3]}" if found else ""


def _rename(model: dict[str, Any], aliases: dict[str, str]) -> None:
    """Rename pieces of a model of the library tokenizers, in place, so that no text can be split into them."""
    if isinstance(model["vocab"], dict):
        model["vocab"] = {aliases.get(piece, piece): index for piece, index in model["vocab"].items()}
    else:
        model["vocab"] = [[aliases.get(piece, piece), score] for piece, score in model["vocab"]]
    if model.get("unk_token") in aliases:
        model["unk_token"] = aliases[model["unk_token"]]
    if "merges" in model:
        pairs = [tuple(merge.split(" ", 1)) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
        model["merges"] = [pair for pair in pairs if not {*pair, "".join(pair)} & aliases.keys()]
