"""What a run claims in its store before it works there: the results that it reads and makes.

Usage: `with lease_of(plan) as lease: ...`.

Waiting for another run that makes the same result is `common.engine.run`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from common.engine.plan import Plan
from common.store.artifacts import Store, writing
from common.store.leases import Lease, leased
from common.training.distributed import ranks


@contextlib.contextmanager
def lease_of(plan: Plan) -> Iterator[Lease]:
    """Hold what a plan found until the run ends. The main process does so for all that share a stage."""
    artifacts = Store(plan.resolved.out).artifacts
    if not ranks.is_main_process():
        yield Lease(artifacts, None)
        return
    with contextlib.ExitStack() as held:
        with writing(artifacts):
            lease = held.enter_context(leased(artifacts))
            lease.add(*(step.artifact.path.name for step in plan.steps if step.artifact is not None))
        yield lease
