"""Where documents lie in packed rows, found from their positions, once for all layers of a forward pass.

Usage: `documents = documents_of(position_ids, batch)`, in an attention function; then `documents.borders`, or, where
`documents.apart_pays`, `documents.apart(states)` and `documents.together(attended)`.

A document begins at a row's start, and where positions do not go on by one. Padding at the end of a row is another.
Where one begins at a position p > 0, it goes on from the first p tokens of the last document before it in the row that
begins at 0: several answers to one prompt, which stands there once.
Shapes: B rows of T tokens, H heads, D the size of a head, N documents, L tokens of the longest of them with what it
goes on from.
"""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# Documents are given rows of their own where these have at most this many places and scores per one of the packed
# rows: states are copied to and fro, which takes memory and does not pay for a few scores less.
MOST_PLACES, MOST_SCORES = 1.25, 0.7


class Documents:
    """The documents of one batch of packed rows."""

    def __init__(self, position_ids_BT: Tensor) -> None:
        import torch

        # Nothing of the positions themselves is kept: a view of them would keep them, and so this, alive for ever.
        self.shape: tuple[int, ...] = tuple(position_ids_BT.shape)
        self._starts_BT = starts_of(position_ids_BT)
        starts = self._starts_BT.flatten()
        places_N = starts.nonzero()[:, 0]
        self.borders = torch.nn.functional.pad(places_N, (0, 1), value=len(starts)).to(torch.int32)
        lengths_N = self.borders.diff()
        first_N = position_ids_BT.flatten()[places_N].to(torch.int32)  # the position that each begins at
        roots_N = (first_N == 0) | (places_N % self.shape[1] == 0)
        numbers_N = torch.arange(len(places_N), device=places_N.device)
        self._root_N = torch.where(roots_N, numbers_N, 0).cummax(0).values
        usable_N = ~roots_N & (first_N[self._root_N] == 0) & (first_N <= lengths_N[self._root_N])
        self._shared_N = torch.where(usable_N, first_N, 0)
        self.whole_N = lengths_N + self._shared_N
        self.branches, self.longest = bool(self._shared_N.any()), int(self.whole_N.max())

    @functools.cached_property
    def mask(self) -> Tensor:
        """(B, 1, T, T), true where a token may look: at its own document and what that goes on from, not ahead."""
        import torch

        number_BT = self._number.view(self.shape)
        seen_BTT = number_BT[:, :, None] == number_BT[:, None, :]
        if self.branches:
            root_BT, shared_BT = self._root_N[number_BT], self._shared_N[number_BT]
            within_BT = self._within.view(self.shape)
            seen_BTT |= (root_BT[:, :, None] == number_BT[:, None, :]) & (within_BT[:, None, :] < shared_BT[:, :, None])
        return torch.tril(seen_BTT)[:, None]

    @property
    def alone(self) -> bool:
        """Whether every row is one document, which a causal mask is enough for."""
        return len(self.borders) - 1 == self.shape[0]

    @property
    def apart_pays(self) -> bool:
        """Whether documents are better attended to in rows of their own than under a mask.

        Rows of answers that share a prompt are as wide as all of them, so that scores alone decide there.
        """
        batch, length = self.shape
        places = (len(self.borders) - 1) * self.longest
        few = self.branches or places <= MOST_PLACES * batch * length
        return bool(few and places * self.longest <= MOST_SCORES * batch * length * length)

    def apart(self, states_BHTD: Tensor) -> Tensor:
        """Return (N, H, L, D), each document from the first place of its row; what follows it is never looked at."""
        batch, heads, length, size = states_BHTD.shape
        flat = states_BHTD.transpose(1, 2).reshape(batch * length, heads * size)
        return flat.index_select(0, self._sources_NL.flatten()).view(-1, self.longest, heads, size).transpose(1, 2)

    def together(self, states_NLHD: Tensor) -> Tensor:
        """Return (B, T, H, D), every token back in its place."""
        flat = states_NLHD.flatten(2).flatten(0, 1)
        places = self._number * self.longest + self._shared_N[self._number] + self._within
        return flat.index_select(0, places).view(*self.shape, *states_NLHD.shape[2:])

    @functools.cached_property
    def whole(self) -> tuple[Tensor, Tensor, Tensor]:
        """Whole documents, one behind the other: the flat place in the packed rows that each of their tokens is read
        from, the borders between them, and where among them each token of the rows is.
        """
        import torch

        within_L = torch.arange(self.longest, device=self.whole_N.device)
        sources = self._sources_NL[within_L < self.whole_N[:, None]]
        borders = torch.nn.functional.pad(self.whole_N.cumsum(0), (1, 0)).to(torch.int32)
        return sources, borders, (borders[:-1] + self._shared_N)[self._number] + self._within

    @functools.cached_property
    def _sources_NL(self) -> Tensor:
        """(N, L), the flat place in the packed rows that each place of the documents' rows is read from."""
        import torch

        first_N = self.borders[:-1].long()
        within_L = torch.arange(self.longest, device=first_N.device)
        own_NL = first_N[:, None] - self._shared_N[:, None] + within_L
        shared_NL = first_N[self._root_N][:, None] + within_L
        places_NL = torch.where(within_L < self._shared_N[:, None], shared_NL, own_NL)
        return places_NL.clamp(max=int(self.borders[-1]) - 1)

    @functools.cached_property
    def _number(self) -> Tensor:
        """(B * T,), the number of the document of each token."""
        return self._starts_BT.flatten().cumsum(0) - 1

    @functools.cached_property
    def _within(self) -> Tensor:
        """(B * T,), the place of each token in its document, without what that goes on from."""
        import torch

        return torch.arange(len(self._number), device=self._number.device) - self.borders[:-1].long()[self._number]


def starts_of(position_ids_BT: Tensor) -> Tensor:
    """Return (B, T), true where a document begins."""
    import torch

    goes_on = position_ids_BT[:, 1:] == position_ids_BT[:, :-1] + 1
    return torch.cat([torch.ones_like(position_ids_BT[:, :1], dtype=torch.bool), ~goes_on], dim=-1)


# Every layer of a forward asks for the same positions: the last answer is kept, and thrown away when they are.
_last: tuple[weakref.ref[Tensor], Documents] | None = None


def documents_of(position_ids: Tensor, batch: int) -> Documents:
    """Return the documents of (B, T) positions, or of (1, T) that all rows of a batch share."""
    global _last
    if _last is not None and _last[0]() is position_ids:
        return _last[1]
    found = Documents(position_ids.expand(batch, -1))
    _last = weakref.ref(position_ids, _forget), found
    return found


def _forget(gone: weakref.ref[Tensor]) -> None:
    global _last
    if _last is not None and _last[0] is gone:
        _last = None
