"""What must be known before a run is planned, beside its settings: commits of models of the Hub, and its own data.

Usage: `resolved = settled(resolve(overrides, repository))`.

A model that is named without its commit is looked up once; the commit is noted beside the results, with those of data
sets, and used from there. Nothing else is asked of the Hub here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator

from common.config.resolve import Resolved
from common.config.schema import ModelSettings
from common.config.sequence import assemble
from common.config.stage_sections import Layer
from common.config.stages import RewardSettings
from common.config.variants import with_layers
from common.data.manifest.revisions import NAME, Revisions
from common.engine.own_data import fit_to_own_data
from common.models.source import COMMIT, commit_of, is_hub_id, taken_model

Ask = Callable[[ModelSettings, str], str]


def settled(resolved: Resolved, ask: Ask | None = commit_of) -> Resolved:
    """Return a run with the commits of its models, and with budgets for its own data.

    Raises ConfigError or DataError for a model whose commit cannot be found. Without `ask`, only noted ones are used.
    """
    if resolved.members:
        members = {domain: settled(member, ask) for domain, member in resolved.members.items()}
        return assemble(members, resolved.order)
    return fit_to_own_data(with_commits(resolved, ask))


def with_commits(resolved: Resolved, ask: Ask | None) -> Resolved:
    """Return a run whose models of the Hub are named by their commits, as far as these are noted or asked for."""
    wanted = list(_without_commit(resolved)) if resolved.layers else []
    if not wanted:
        return resolved
    fresh = resolved.config.run.newest_data and ask is not None
    noted, added = Revisions(resolved.out / NAME, fresh=fresh), []
    for key, model in wanted:
        name = f"models/{model.path}@{model.revision or 'main'}"
        found = noted.commit(name, None if ask is None else functools.partial(ask, model, key))
        if found is not None:
            layer = Layer(f"the Hub, noted in {NAME}", {key: {"revision": found}}, stage="" if key == "model" else key)
            added.append(layer)
    noted.save()
    return with_layers(resolved, added, on_top=True)


def _without_commit(resolved: Resolved) -> Iterator[tuple[str, ModelSettings]]:
    """Yield the models of the Hub that are named by no commit, each with the section that names it."""
    config = resolved.config
    models = {"model": config.model}
    for name, settings in config.stages.items():
        if isinstance(settings, RewardSettings) and settings.path is not None:
            models[name] = taken_model(settings, config)
    for key, model in models.items():
        if is_hub_id(model.path) and not re.fullmatch(COMMIT, model.revision or ""):
            yield key, model
