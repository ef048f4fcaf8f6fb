"""What a run would do: for each stage whether it is there, and if not, why.

Usage: `plan = make_plan(resolved)`; `for step in plan.steps: print(step.state, step.reasons)`.

A stage's fingerprint needs the digests of its inputs, so a stage behind a missing one waits. It is reused if its inputs
turn out identical (early cut-off). Planning imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from common.config.cleaning import from_lineage
from common.config.kinds import kind_of
from common.config.node import Node
from common.config.resolve import Resolved
from common.config.schema import Config
from common.config.stages import PublishSettings
from common.cost.budget import budget_of
from common.cost.growth import growth_notes
from common.cost.outlook import Outlook
from common.cost.shapes import shape_of
from common.data.corpus import Corpus
from common.data.general_world import WithGeneralWorld
from common.data.several import Several
from common.data.sizes import CHATML, OWN, RowSizes
from common.engine import staleness
from common.engine.code import code_of
from common.engine.continued import check_continued, continued_lines
from common.engine.corpora import open_corpus
from common.engine.fingerprint import data_of, recipe_of, settings_of
from common.engine.methods import carry_lines, check_methods, lost_states, method_lines
from common.engine.own_data import reasons, repeated
from common.engine.preflight.hardware import check_out
from common.engine.preflight.losses import check_losses, losses
from common.engine.preflight.settings import check_settings
from common.engine.preflight.small_corpora import small_corpora
from common.engine.preflight.sources import check_sources
from common.errors import ConfigError
from common.models.facts import check_taken_facts
from common.models.licence import RollUp
from common.models.local import locate
from common.models.source import is_hub_id
from common.report.licences import base_record, planned_licence, require_known
from common.store.artifacts import Artifact, Store, fingerprint_of
from common.store.lineage import require_drawable
from common.store.runs import run_of
from common.store.verify import seen_changed

State = Literal["cached", "missing", "stale", "waits"]
STATELESS = "a later stage goes on with the state of its optimizer, which was not kept"
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Step:
    """One stage of a plan."""

    node: Node
    state: State
    reasons: tuple[str, ...]  # why it is not there, or what else is worth knowing
    fingerprint: str | None  # none while it waits for an input
    artifact: Artifact | None
    tokens: int | None = None  # none where rows are on the Hub, or an earlier stage makes them
    counted: bool = False  # tokens follow from the lengths of rows, and are about right
    seconds: float | None = None  # none where neither an earlier run nor a known speed gives an estimate


@dataclass(frozen=True)
class Plan:
    """All stages of a run, in running order."""

    resolved: Resolved
    corpus: Corpus
    steps: tuple[Step, ...]
    outlook: Outlook  # what each of them will need
    licence: RollUp  # of what will be published
    notes: tuple[str, ...] = ()  # what was decided for the user's own data, and what is worth knowing of them
    parts: Mapping[str, Plan] = field(default_factory=dict)  # of a sequence: what the stages of each domain need

    @property
    def stateless(self) -> set[str]:
        """The stages that are there, but not the state of their optimizer, with which one to be made goes on."""
        return {step.node.name for step in self.steps if step.reasons == (STATELESS,)}

    @property
    def to_do(self) -> list[Step]:
        return [step for step in self.steps if step.state != "cached"]

    @property
    def by_domain(self) -> Mapping[str, Plan]:
        """Return the plans whose stages have one corpus: this one, or those of a sequence's domains and of the rest."""
        return self.parts or {"": self}

    def part(self, node: Node) -> Plan:
        """Return the plan that knows a stage's corpus."""
        return self.parts.get(node.domain, self)

    def check(self) -> list[str]:
        """Stop where results cannot be written, sources do not suit a stage, or it would lose too many of their rows.

        Returns what a sample of the rows makes likely.
        """
        if self.parts:
            return list(dict.fromkeys(line for part in self.parts.values() for line in part.check()))
        assert self.outlook.sizes is not None, "a plan knows its corpus"
        if self.to_do:
            check_out(self.resolved)
        check_sources(self.resolved, [step.node for step in self.to_do], self.corpus)
        return check_losses(self.resolved, [step.node for step in self.to_do], self.corpus, self.outlook.sizes)


def make_plan(resolved: Resolved, forced: frozenset[str] = frozenset()) -> Plan:
    """Return the plan of a run. `forced` stages count as missing even if they are there."""
    if resolved.members:
        return _plan_sequence(resolved, forced)
    corpus = open_corpus(resolved)  # before the settings, which are fitted to data that can be read
    check_settings(resolved)
    store = Store(resolved.out)
    outlook = Outlook.of(resolved, sizes=_sizes(resolved, corpus, store))
    check_methods(resolved, outlook)
    check_continued(resolved, corpus)
    steps = _steps(resolved, {"": (corpus, outlook)}, store, forced)
    return _plan(resolved, corpus, steps, outlook, _licence(resolved, corpus, steps))


def _plan_sequence(resolved: Resolved, forced: frozenset[str]) -> Plan:
    """Return the plan of a sequence of domains, whose parts are those of its domains."""
    store, members = Store(resolved.out), resolved.members
    corpora = {domain: open_corpus(member) for domain, member in members.items()}
    for member in members.values():
        check_settings(member)
    _require_one_base(members, corpora)
    outlooks = {
        domain: Outlook.of(member, sizes=_sizes(member, corpora[domain], store)) for domain, member in members.items()
    }
    for domain, member in members.items():
        check_methods(member, outlooks[domain])
        check_continued(member, corpora[domain])
    first, together = next(iter(outlooks.values())), Several(corpora)
    owners = {node.name: outlooks.get(node.domain, first) for node in resolved.nodes}
    settings = {name: owner.settings[name] for name, owner in owners.items() if name in owner.settings}
    outlook = replace(first, resolved=resolved, settings=settings)
    context = {"": (together, outlook), **{domain: (corpora[domain], outlooks[domain]) for domain in members}}
    steps = _steps(resolved, context, store, forced)
    start, licence = start_of(resolved).name, _licence(resolved, together, steps)
    parts = {
        domain: _plan(resolved.members.get(domain, resolved), corpus, own, expected, licence)
        for domain, (corpus, expected) in context.items()
        if (own := [step for step in steps if step.node.domain == domain or (domain and step.node.name == start)])
    }
    notes = dict.fromkeys(filter(None, [resolved.order, *(note for part in parts.values() for note in part.notes)]))
    return Plan(resolved, together, tuple(_with_libraries(steps, outlook)), outlook, licence, tuple(notes), parts)


def _require_one_base(members: Mapping[str, Resolved], corpora: Mapping[str, Corpus]) -> None:
    """Check that the base of all domains is made of the same. Raises ConfigError with what differs.

    A checkpoint that is taken reads no rows, whatever exam its recipe names.
    """
    recipes = {}
    for domain, member in members.items():
        recipe = recipe_of(start_of(member), member, corpora[domain], {})
        unread = ("data",) if member.config.model.path is not None else ()
        recipes[domain] = {key: value for key, value in recipe.items() if key not in unread}
    (one, first), *others = recipes.items()
    for other, recipe in others:
        if found := staleness.changes(first, recipe, members[other].origins, start_of(members[other])):
            raise ConfigError(
                f"domains={','.join(members)}: a chain has one base, and that of {other} is another than that of "
                f"{one}: {found[0]}. Leave one of them out, or train each by itself."
            )


def _steps(
    resolved: Resolved, context: Mapping[str, tuple[Corpus, Outlook]], store: Store, forced: frozenset[str],
    stateless: frozenset[str] = frozenset(),
) -> list[Step]:  # fmt: skip
    """Return the steps of all stages; `context` has the corpus and the expectations by domain.

    `stateless` ones are made again though they are there, as a stage to be made goes on with their optimizer's state.
    """
    known: dict[str, Artifact] = {}
    steps = []
    for node in resolved.nodes:
        corpus, outlook = context[node.domain if resolved.members else ""]
        again = STATELESS if node.name in stateless else "asked for again" if node.name in forced else ""
        step = _step(node, resolved.member(node), corpus, store, known, outlook, again)
        if step.artifact is not None and step.state == "cached":
            known[node.name] = step.artifact
            check_taken_facts(node.kind, step.artifact.path, resolved.config.model)
        steps.append(step)
    lost = lost_states(resolved, {s.node.name: s.fingerprint for s in steps if s.state == "cached"}, store)
    return _steps(resolved, context, store, forced, stateless | lost) if lost else steps


def _plan(resolved: Resolved, corpus: Corpus, steps: Sequence[Step], outlook: Outlook, licence: RollUp) -> Plan:
    """Return the plan with these steps, with what is worth saying."""
    notes = _notes(resolved, corpus, outlook, [step.node for step in steps if step.state != "cached"])
    return Plan(resolved, corpus, tuple(_with_libraries(steps, outlook)), outlook, licence, notes)


def _licence(resolved: Resolved, corpus: Corpus, steps: Sequence[Step]) -> RollUp:
    """Return the licence of what will be published. Raises ConfigError where others are to get what has none known."""
    record = base_record(step.artifact.manifest for step in steps if step.state == "cached" and step.artifact)
    licence = planned_licence(resolved, corpus, record)
    publish = resolved.config.stages["publish"]
    if isinstance(publish, PublishSettings) and publish.to.startswith("hub:"):
        require_known(licence, publish.to)
    return licence


def _notes(resolved: Resolved, corpus: Corpus, outlook: Outlook, to_do: Sequence[Node]) -> tuple[str, ...]:
    assert outlook.sizes is not None, "a plan knows its corpus"
    lent = [corpus.note] if isinstance(corpus, WithGeneralWorld) else []
    lost = losses(resolved, to_do, corpus, outlook.sizes)
    ordered = [f"{node.name}: {phrase}." for node in to_do for phrase in resolved.config.stages[node.name].phrases]
    grown = growth_notes(outlook, [node.name for node in to_do])
    on = [line for node in to_do for line in method_lines(node, resolved.config, outlook)]
    ordered += [
        f"{node.name}: replays nothing, as the chain has read nothing here before it."
        for node in to_do
        if from_lineage(settings := resolved.config.stages[node.name])
        and getattr(settings, "replay", 0.0) > 0
        and resolved.config.model.path is not None
        and node.parent == start_of(resolved).name
    ]
    on += [line for node in to_do for line in carry_lines(node, resolved, outlook)]
    on += [line for node in to_do for line in continued_lines(node, resolved, outlook.sizes)]
    small = small_corpora(resolved, to_do, outlook.sizes)
    return (*lent, *reasons(resolved), *grown, *on, *ordered, *small, *repeated(resolved, corpus, outlook.sizes), *lost)


def _with_libraries(steps: Sequence[Step], outlook: Outlook) -> Iterator[Step]:
    """Yield the steps; the first that needs some libraries also loads them. Processes that share a stage are new."""
    loaded = {""}
    for step in steps:
        name, seconds = outlook.libraries(step.node.name)
        loads = step.state != "cached" and step.seconds is not None and name not in loaded
        yield replace(step, seconds=(step.seconds or 0) + seconds) if loads else step
        if loads and not (kind_of(step.node.kind).shareable and outlook.config.run.processes > 1):
            loaded.add(name)


def start_of(resolved: Resolved) -> Node:
    """Return the stage that begins the chain; those that clean data stand before it."""
    return next(node for node in resolved.nodes if kind_of(node.kind).starts)


def _sizes(resolved: Resolved, corpus: Corpus, store: Store) -> RowSizes:
    """Return the sizes of the run's rows, in tokens of its checkpoint's tokenizer where that is on this machine.

    That of a base which is trained here counts only where it is the planned one, and not a former one of the profile.
    """
    config, shape = resolved.config, shape_of(resolved.config.model)
    path = config.model.path
    folder = None if path is None or is_hub_id(path) else locate(path)
    if path is None:
        first = start_of(resolved)
        base = store.get(first.name, fingerprint_of(recipe_of(first, resolved, corpus, {})))
        folder = None if base is None else base.path
    tokenizer = folder / TOKENIZER if folder is not None and (folder / TOKENIZER).is_file() else None
    vocabulary = None if shape is None else shape.vocabulary
    return RowSizes(corpus, tokenizer=tokenizer, vocabulary=vocabulary, turn_tokens=OWN if path is None else CHATML)


def _step(
    node: Node, resolved: Resolved, corpus: Corpus, store: Store, known: Mapping[str, Artifact], outlook: Outlook,
    again: str,
) -> Step:  # fmt: skip
    config = resolved.config
    before = run_of(resolved).linked(node.name)
    absent = [name for name in node.inputs if name not in known]
    if absent:
        expected = _expected(node, config, corpus, before if start_of(resolved).name in known else None, outlook)
        latest = [other.name for other in resolved.nodes if other.name in absent][-1]
        return Step(node, "waits", (f"after {latest}",), None, before, *expected)
    recipe = recipe_of(node, resolved, corpus, {name: known[name] for name in node.inputs})
    fingerprint = fingerprint_of(recipe)
    found = store.get(node.stored, fingerprint)
    problem = store.problem(node.stored, fingerprint) if found is None else seen_changed(found)
    found = None if problem else found
    gone = staleness.unpublished(found, store) if found is not None else None
    without = staleness.went_without(found, resolved) if found is not None else None
    if found is not None and not gone and not again and not without:
        notes = (
            *staleness.not_as_published(found, resolved),
            *staleness.left_out(found, node),
            *staleness.code_changes(found, node, resolved),
        )
        return Step(node, "cached", notes, fingerprint, found)
    if "lineage" in recipe and node.parent is not None:
        names = {artifact.fingerprint: name for name, artifact in known.items()}
        require_drawable(known[node.parent], node.name, store, names, run_of(resolved).rerun)
    alike = before is not None and before.manifest["recipe"].get("model") == recipe.get("model")
    tokens, counted, seconds = _expected(node, config, corpus, before if alike else None, outlook)
    if gone:
        return Step(node, "missing", (gone,), fingerprint, None, tokens, counted, seconds)
    if again or without:
        return Step(node, "stale", (without or again,), fingerprint, found, tokens, counted, seconds)
    if problem is not None:
        return Step(node, "missing", (f"{staleness.DAMAGED}{problem}",), fingerprint, None, tokens, counted, seconds)
    work = store.work_folder(node.stored, fingerprint)
    code = code_of(node.kind, resolved.repository, config.stages[node.name])["digest"]
    stopped, share = staleness.stopped_at(work, code)
    notes = tuple(filter(None, [stopped, staleness.in_other_precision(recipe, node, resolved, store)]))
    seconds = None if seconds is None else seconds * (1 - share)
    if before is None:
        return Step(node, "missing", notes or ("not made yet",), fingerprint, None, tokens, counted, seconds)
    reasons = (*notes, *staleness.changes(before.manifest["recipe"], recipe, resolved.origins, node))
    return Step(node, "stale", reasons, fingerprint, before, tokens, counted, seconds)


def _expected(
    node: Node, config: Config, corpus: Corpus, before: Artifact | None, outlook: Outlook
) -> tuple[int | None, bool, float | None]:
    """Return (tokens, whether they are counted from rows, seconds) of a stage that is to be made.

    `before` is its last result from the same base model, if there is one: with the same settings and rows it tells all
    exactly, and otherwise how fast the stage is here. Without one, `common.cost` estimates.
    """
    settings, kind = config.stages[node.name], kind_of(node.kind)
    if kind.starts and config.model.path is not None:
        return 0, False, outlook.seconds(node.name, 0)
    assert outlook.sizes is not None, "a plan knows its corpus"
    budget = budget_of(node, settings, outlook.sizes)
    if before is not None and outlook.hardware.here:
        recipe, spent = before.manifest["recipe"], float(before.manifest["seconds"])
        trained, speed = int(before.manifest["tokens"]), float(before.manifest["tokens_per_second"])
        same = recipe["settings"] == settings_of(settings) and recipe.get("data", {}) == data_of(node, config, corpus)
        if same or not kind.holds_model:
            return trained or budget.tokens, budget.counted and not trained, spent
        if budget.tokens and trained and speed:
            return budget.tokens, budget.counted, max(1.0, spent + (budget.tokens - trained) / speed)
    seconds = outlook.seconds(node.name, budget.tokens)
    if node.name not in outlook.settings and not (outlook.unknown and kind.holds_model):
        seconds = kind.seconds
    return budget.tokens, budget.counted, seconds
