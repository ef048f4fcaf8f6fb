"""Where documents lie in packed rows, found from their positions, once for all layers of a forward pass.

Usage: `documents = documents_of(position_ids, batch)`, in an attention function; then `documents.borders`, or, where
`documents.apart_pays`, `documents.apart(states)` and `documents.together(attended)`.

A document begins at a row's start, and where positions do not go on by one. Padding at the end of a row is another.
Shapes: B rows of T tokens, H heads, D the size of a head, N documents, L tokens of the longest of them.
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
        self.borders = torch.nn.functional.pad(starts.nonzero()[:, 0], (0, 1), value=len(starts)).to(torch.int32)
        self.longest = int(self.borders.diff().max())

    @functools.cached_property
    def mask(self) -> Tensor:
        """(B, 1, T, T), true where a token may look: at its own document, not ahead."""
        import torch

        document_BT = self._starts_BT.cumsum(-1)
        same_BTT = document_BT[:, :, None] == document_BT[:, None, :]
        return torch.tril(same_BTT)[:, None]

    @property
    def alone(self) -> bool:
        """Whether every row is one document, which a causal mask is enough for."""
        return len(self.borders) - 1 == self.shape[0]

    @property
    def apart_pays(self) -> bool:
        """Whether documents are better attended to in rows of their own than under a mask."""
        batch, length = self.shape
        places = (len(self.borders) - 1) * self.longest
        scores = places * self.longest
        return bool(places <= MOST_PLACES * batch * length and scores <= MOST_SCORES * batch * length * length)

    def apart(self, states_BHTD: Tensor) -> Tensor:
        """Return (N, H, L, D), each document from the first place of its row; what follows it is never looked at."""
        batch, heads, length, size = states_BHTD.shape
        flat = states_BHTD.transpose(1, 2).reshape(batch * length, heads * size)
        return flat.index_select(0, self._sources).view(-1, self.longest, heads, size).transpose(1, 2)

    def together(self, states_NLHD: Tensor) -> Tensor:
        """Return (B, T, H, D), every token back in its place."""
        flat = states_NLHD.flatten(2).flatten(0, 1)
        return flat.index_select(0, self._places).view(*self.shape, *states_NLHD.shape[2:])

    @functools.cached_property
    def _sources(self) -> Tensor:
        """(N * L,), the flat place in the packed rows that each place of the documents' rows is read from."""
        import torch

        first_N = self.borders[:-1].long()
        places = first_N[:, None] + torch.arange(self.longest, device=first_N.device)
        return places.clamp(max=int(self.borders[-1]) - 1).flatten()

    @functools.cached_property
    def _places(self) -> Tensor:
        """(B * T,), the flat place in the documents' rows of each token of the packed rows."""
        import torch

        lengths_N = self.borders.diff().long()
        number = torch.repeat_interleave(torch.arange(len(lengths_N), device=lengths_N.device), lengths_N)
        within = torch.arange(len(number), device=number.device) - self.borders[:-1].long()[number]
        return number * self.longest + within


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
