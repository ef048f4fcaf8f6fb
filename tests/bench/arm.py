"""What an arm of `just bench methods` is: settings with a method, those of its plain counterpart, and the claim.

Usage: `Arm(on=Setting({...}), plain=Setting({...}), claim=Claim("It forgets less.", "a paper", {"general": FALLS}))`.

Claims are in our words, with their source, and with the paper's own change of loss where it gives one: as a share of
the loss, since losses per token of other tokenizers do not compare. It measures nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Side = Literal["domain", "general"]
SIDES: tuple[Side, Side] = ("domain", "general")
FALLS, RISES = True, False  # bits per byte; the lower the better
CHECKPOINT = "smollm2"  # of the texts: medicine again, on SmolLM2-135M-Instruct
EVERYWHERE = ("embedded", "real", CHECKPOINT)


@dataclass(frozen=True)
class Setting:
    """Overrides of a chain, and the stage whose exam counts."""

    words: Mapping[str, str]
    stage: str = "cpt"


@dataclass(frozen=True)
class Claim:
    """What a paper says of its method against the plain counterpart."""

    text: str
    source: str
    expects: Mapping[Side, bool]  # what bits per byte of a side do; a side without a claim is only measured
    shares: Mapping[Side, float] = field(default_factory=dict)  # the change of the paper's loss, as a share of it


@dataclass(frozen=True)
class Arm:
    """A method against its plain counterpart."""

    on: Setting
    plain: Setting
    claim: Claim
    ours: str = ""  # what of the setting is scaled to this budget, and not the paper's
    limit: float | None = None  # most CPU time of a step, relative to the plain one
    phrase: str = ""  # with `paper`, of an arm that is no method of the registry
    paper: str = ""
    texts: tuple[str, ...] = ("embedded", "real")  # none: what its paper claims is not a matter of bits per byte
    timed_by: str = ""  # another bench that measures its step
    untimed: str = ""  # why the time of a step is not set against the plain one
    timed_as: tuple[Setting, Setting] | None = None  # on and plain for the time of a step, where these differ
    scored: bool = False  # its rows need scores, which the texts of `just bench undesired` have
    variant_of: str = ""  # the method of the registry that this is a form of
    elsewhere: Mapping[str, tuple[Setting, Setting]] = field(default_factory=dict)  # on and plain of texts that differ

    def settings(self, text: str) -> tuple[Setting, Setting]:
        """Return what is trained with the method and without, for one of the texts."""
        return self.elsewhere.get(text, (self.on, self.plain))

    @property
    def steps(self) -> tuple[Setting, Setting]:
        """Return the settings with the method and without, whose steps are timed."""
        return self.timed_as or (self.on, self.plain)

    @property
    def timed(self) -> bool:
        return not (self.timed_by or self.untimed or self.texts == (CHECKPOINT,))


REHEARSED = {"cpt.replay": "0.25"}
ALONE = {"cpt.replay": "0"}  # nothing of the general text is read again
PLAIN, FORGETFUL = Setting(REHEARSED), Setting(ALONE)
IBRAHIM = "arXiv 2403.08763, 405M parameters, English to German (numbers by a secondary account)"
BASE = "<base>"  # in a word of a setting: the folder of the base of the same seed


def wide(stage: str) -> dict[str, str]:
    """Return overrides of an SFT whose rows hold an abstract beside its question."""
    return {f"{stage}.tokens": "40960", f"{stage}.sequence_length": "1024", f"{stage}.batch_tokens": "2048"}
