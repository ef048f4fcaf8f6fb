"""The licence of a published model: that of its base and of every source that trained it, the strictest of all.

Usage: `rolled = licence_of_chain(restated(chain, model, corpus), asked)` on what is made, and before that
`planned_licence(resolved, corpus, base)`. What a licence means is `common.models.licence`.

Exams do not count: they measure a model and teach it nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.config.kinds import kind_of
from common.config.node import Node
from common.config.resolve import Resolved
from common.config.schema import ModelSettings
from common.config.stages import PublishSettings
from common.data.corpus import Corpus
from common.errors import ConfigError
from common.models.licence import RollUp, Strictness, licence_of, read_licence, roll_up
from common.models.source import is_hub_id
from common.report.chain import Chain
from common.report.markdown import code
from common.stage import data_roles

BASE = "base model"  # role of the record that a base stage leaves of a given checkpoint
SETTING = "publish.licence"
LOCAL = "local checkpoint"  # title of a checkpoint whose files do not name it
NAME = re.compile(r"`[^`]+`")  # of a source or a base, in a sentence
MEASURES = ("questions_", "text_", "preference_heldout")  # beginnings of the corpus roles that train nothing
Facts = Mapping[str, Any]


def base_record(manifests: Iterable[Facts]) -> Facts | None:
    """Return what a base stage noted of the checkpoint that it took; None where a base was pretrained."""
    records = (source for manifest in manifests for source in manifest.get("sources", ()))
    return next((source for source in records if source.get("role") == BASE), None)


def trained_on(chain: Chain, name: str) -> list[Facts]:
    """Return the sources whose rows trained a checkpoint or a stage that it came from, each once, in chain order."""
    behind, waiting = set[str](), [name]
    while waiting:
        if (stage := waiting.pop()) in chain.manifests and stage not in behind:
            behind.add(stage)
            waiting += chain.manifests[stage].get("inputs", {})
    found: dict[str, Facts] = {}
    for stage, manifest in chain.manifests.items():
        if stage not in behind:
            continue
        used = {
            row["source"]
            for row in manifest.get("rows", ())
            if row.get("rows_out") and not str(row.get("role")).startswith(MEASURES)
        }
        found |= {str(s["id"]): s for s in manifest.get("sources", ()) if s["id"] in used and s["id"] not in found}
    return list(found.values())


def restated(chain: Chain, model: ModelSettings, corpus: Corpus) -> Chain:
    """Return the chain with licences as settings and the data's own file state them today, not when it was made."""
    today = {str(source["id"]): source.get("licence") for source in corpus.sources()}

    def stated(source: Facts) -> dict[str, Any]:
        if source.get("role") == BASE:
            return {**source, "licence": licence_of(model) or source.get("licence")}
        return {**source, "licence": today.get(str(source["id"])) or source.get("licence")}

    manifests = {
        name: {**manifest, "sources": [stated(source) for source in manifest.get("sources", ())]}
        for name, manifest in chain.manifests.items()
    }
    return replace(chain, manifests=manifests)


def licence_of_chain(chain: Chain, asked: str | None) -> RollUp:
    """Return the licence of the published checkpoint; `asked` is `publish.licence`.

    Raises ConfigError where it is none that the base model allows.
    """
    record = base_record(chain.manifests.values())
    base = None if record is None else (named(record), record.get("licence"))
    data = [(code(source["id"]), source.get("licence")) for source in trained_on(chain, chain.published)]
    return chosen(roll_up(base, data), base, asked)


def planned_licence(resolved: Resolved, corpus: Corpus, record: Facts | None) -> RollUp:
    """Return the licence that a run's result will have, as far as it is known before; `record` is of a made base."""
    config = resolved.config
    model, publish = config.model, config.stages["publish"]
    assert isinstance(publish, PublishSettings)
    base = None
    if model.path is not None:
        title = model.path if is_hub_id(model.path) else Path(model.path).name
        base = (named(record or {"title": title}), licence_of(model) or (record or {}).get("licence"))
    behind = _behind(resolved.nodes, resolved.pipeline.publish)
    training = [node for node in behind if not (kind_of(node.kind).starts and model.path is not None)]
    roles = set[str]()
    for node in training:
        roles.update(data_roles(node.kind, corpus, config.stages[node.name], sampled=node.sampled))
    data = [
        (code(source["id"]), source.get("licence"))
        for source in corpus.sources()
        if roles & set(str(source["role"]).split(", "))
    ]
    rolled = chosen(found := roll_up(base, data), base, publish.licence)
    if publish.licence is not None and resolved.origins.get(SETTING) != "command line":
        _require_strict(found, publish.licence, resolved.origins.get(SETTING, ""))
    return rolled


def _behind(nodes: Sequence[Node], name: str) -> list[Node]:
    """Return a stage and all that it is made from, in running order."""
    found = {name}
    for node in reversed(nodes):
        found |= set(node.inputs) if node.name in found else set()
    return [node for node in nodes if node.name in found]


def named(record: Facts) -> str:
    """Return what to call a base model, without its path."""
    title = str(record.get("title") or "")
    return code(title if title and title != LOCAL else record.get("id"))


def chosen(rolled: RollUp, base: tuple[str, str | None] | None, asked: str | None) -> RollUp:
    """Return the roll-up under the licence that `publish.licence` asks for.

    It may be freer than the data's, whose hold on weights is not settled, and never freer than the base model's. What
    comes from a share-alike base stays under its licence.
    """
    if asked is None:
        return rolled
    wanted = read_licence(asked)
    if base is not None and (own := read_licence(base[1])).strictness > Strictness.PERMISSIVE and own.id != wanted.id:
        if own.strictness == Strictness.UNKNOWN:
            return rolled  # `model.licence` is asked for first
        if wanted.strictness <= own.strictness or (own.family and own.family != wanted.family):
            raise ConfigError(
                f"{SETTING}={asked}, but {base[0]} is under {own.text}, which holds for what is made from it too; set "
                f"{SETTING}={own.id}, or none."
            )
    if rolled.unknown:
        return rolled
    return replace(rolled, id=wanted.id, name=wanted.text if wanted.id == "other" else None, asked=asked)


def _require_strict(rolled: RollUp, asked: str, layer: str) -> None:
    """Only the command line may ask for less than the data do: who runs it knows what the texts are."""
    top = max((licence.strictness for _, licence in rolled.strictest), default=Strictness.PUBLIC)
    if read_licence(asked).strictness < top:
        name, licence = rolled.strictest[0]
        raise ConfigError(
            f"{SETTING}={asked} ({layer}) allows more than {name} ({licence.text}), on which the model trains; remove "
            f"it, or say {SETTING}={asked} on the command line."
        )


def licence_facts(rolled: RollUp) -> list[str]:
    """Return what is to be known of the licences, for readers of the card: what is missing, conflicts, limits."""
    return [*(f"the licence of {name} is not known." for name in rolled.unknown), *rolled.warnings]


def licence_notes(rolled: RollUp) -> list[str]:
    """Return the same for who runs it, before anything is spent: each with the next step, and an odd id that was set.

    A conflict that `publish.licence` settles has no next step.
    """
    missing = [f"the licence of {name} is not known; {how_to_state(rolled, name)}" for name in rolled.unknown]
    conflicts = [c if rolled.asked else f"{c} {_how_to_settle(rolled, c)}" for c in rolled.conflicts]
    odd = []
    if rolled.asked and rolled.id == "other" and rolled.asked != "other":
        odd = [f"{SETTING}={rolled.asked} is no id that is known here; the card says `other` with this as its name."]
    return [*missing, *conflicts, *rolled.limits, *odd]


def _how_to_settle(rolled: RollUp, conflict: str) -> str:
    """Return the next step for two licences that may not go together; the sources are those that the sentence names."""
    sources = [name for name in dict.fromkeys(NAME.findall(conflict)) if name != rolled.base]
    return f"Take {' or '.join(sources)} out of the data, or set {SETTING}=<id> if you know that they go together."


def how_to_state(rolled: RollUp, name: str) -> str:
    """Return the next step for a licence that is not known."""
    is_base = rolled.base == name
    where = "set model.licence=<id>" if is_base else "write it beside the source (licence: <id>)"
    return f"look where it comes from, and {where}, such as apache-2.0."


def require_known(rolled: RollUp, to: str) -> None:
    """Raise ConfigError where something would be given to others whose licence is not known."""
    if rolled.unknown:
        name = rolled.unknown[0]
        raise ConfigError(f"publish.to={to}: the licence of {name} is not known; {how_to_state(rolled, name)}")
