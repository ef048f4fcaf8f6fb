"""Make a callback of transformers from functions, without importing transformers before a training needs it.

Usage: `trainer.add_callback(callback(on_step_end=print))`; each is called with `args, state, control, **rest`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def callback(**events: Callable[..., None]) -> Any:
    """Return a TrainerCallback that calls these functions at the events of their names."""
    from transformers import TrainerCallback

    unknown = events.keys() - vars(TrainerCallback).keys()
    assert not unknown, f"transformers has no event {unknown}"
    return type("Callback", (TrainerCallback,), {name: staticmethod(call) for name, call in events.items()})()
