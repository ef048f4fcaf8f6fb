"""Several domains in one chain: which ones, the pipeline with a stage for each, and the run put together of theirs.

Usage: `domains = read_domains(overrides, repository)`; `members = resolve_members(domains, overrides, repository)`;
`resolved = assemble(members)`.

Each domain's member is the whole run as that domain alone resolves it: its layers, its data, its folder. A stage has
the settings of the member that its node names. In which order the domains come is `common.engine.ordering`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.config.folders import find_domain, names_in
from common.config.kinds import kind_of
from common.config.names import LONGEST
from common.config.overrides import ALLOW_CODE, flatten
from common.config.pipeline import SEQUENCES, Pipeline, StageSpec, parse_pipeline, read_pipeline
from common.config.resolve import EMBEDDED, HUB, Resolved, nodes_of, resolve
from common.config.stages import CardSettings, MergeSettings, PublishSettings
from common.errors import ConfigError

DOMAINS, ORDER = "domains", "order"  # words of the command line
DEFAULT = "sequence"  # pipeline of a run of several domains
JOINED = "_"  # between the names of the domains, in the name of the run's folder
ALIKE = ("model", "seed", "data")  # what the members of a sequence share: they start from one base


def read_domains(overrides: Mapping[str, str], repository: Path) -> list[str]:
    """Return the domains of a sequence in the order given, each as it was given. Raises ConfigError."""
    given = overrides[DOMAINS]
    if "domain" in overrides:
        raise ConfigError(
            f"domain={overrides['domain']} and domains={given} are both set. domain trains one, domains one after the "
            "other in one chain; keep one."
        )
    domains = [name.strip() for name in given.split(",")]
    if not all(domains):
        raise ConfigError(f"domains={given!r}: expected names with commas between them, such as domains=medical,legal.")
    if len(domains) == 1:
        raise ConfigError(f"domains={given} names one domain. Add another after a comma, or say domain={given}.")
    folders = [find_domain(name, repository) for name in domains]
    for place, folder in enumerate(folders):
        if folder.name in [other.name for other in folders[:place]]:
            raise ConfigError(f"domains={given}: {folder.name} is named twice; a chain trains a domain once. Keep one.")
    data = overrides.get("data", EMBEDDED)
    if data not in (EMBEDDED, HUB):
        raise ConfigError(
            f"data={data} belongs to one domain. With domains=…, use data=embedded or data=hub, for which each domain "
            "has its data.yaml."
        )
    return domains


def resolve_members(
    domains: Sequence[str], overrides: Mapping[str, str], repository: Path, results: Path | None = None
) -> dict[str, Resolved]:
    """Resolve a run of several domains in this order as each of them sees it. Raises ConfigError and DataError."""
    words = {key: value for key, value in overrides.items() if key not in (DOMAINS, ORDER, ALLOW_CODE)}
    names = [find_domain(domain, repository).name for domain in domains]
    consents = consents_of(overrides.get(ALLOW_CODE), names)
    pipeline = expand(_template(words, repository), names)
    members = {}
    for name, domain in zip(names, domains, strict=True):
        given = {**words, "domain": domain, "pipeline": pipeline.name, **consents.get(name, {})}
        members[name] = resolve(given, repository, results, pipeline=pipeline)
    _require_one_base(members)
    return members


def assemble(members: Mapping[str, Resolved], note: str = "") -> Resolved:
    """Return the run of several domains; `note` says why they come in this order.

    Raises ConfigError where one of them cleans rows, which a sequence does not do.
    """
    name, first = name_of(list(members)), next(iter(members.values()))
    for domain, member in members.items():
        if member.pipeline.cleaned:
            raise ConfigError(
                f"The data of {domain} list blocks that clean rows, and a sequence of domains cleans none. Clean them "
                f"for domain={domain} first, or take the blocks out."
            )
    pipeline = first.pipeline
    stages, of_stages = {}, first.config.stages
    origins = {key: label for key, label in first.origins.items() if key.partition(".")[0] not in of_stages}
    for node in pipeline.nodes():
        member = members.get(node.domain, first)
        stages[node.name] = member.config.stages[node.name]
        origins |= {key: label for key, label in member.origins.items() if key.partition(".")[0] == node.name}
    stages["card"], stages["publish"] = _card(members), _publish(members)
    config = first.config.model_copy(update={"domain": name, "stages": stages})
    own = {domain: replace(member, part_of=name) for domain, member in members.items()}
    return replace(
        first, config=config, origins=origins, nodes=nodes_of(pipeline, config), members=own, order=note, layers=(),
        given_name=first.given_name, opened=None, part_of="",
    )  # fmt: skip


def name_of(domains: Sequence[str]) -> str:
    """Return what the run of several domains is called, in the place of a domain's name."""
    joined = JOINED.join(domains)
    if len(joined) <= LONGEST:
        return joined
    return f"{joined[: LONGEST // 2]}{JOINED}{hashlib.sha256(joined.encode()).hexdigest()[:12]}"


def expand(pipeline: Pipeline, domains: Sequence[str]) -> Pipeline:
    """Return a pipeline with a stage for each domain in the place of each stage that says `each`.

    Raises ConfigError for a stage that would not know whose data it has, or which of several it continues from.
    """
    path = f"pipelines/{SEQUENCES}/{pipeline.name}.yaml"
    made = {name: [f"{name}-{domain}" for domain in domains] for name, spec in pipeline.stages.items() if spec.each}
    if not made:
        raise ConfigError(
            f"{path}: no stage says each: chain or each: apart, so it is no pipeline for several domains."
        )

    def last(name: str, place: str) -> str:
        if name in made and pipeline.stages[name].each == "apart":
            raise ConfigError(
                f"{path}: {place}: '{name}' is one stage for each domain, apart; name one that they make."
            )
        return made[name][-1] if name in made else name

    stages: dict[str, StageSpec] = {}
    for name, spec in pipeline.stages.items():
        kind = kind_of(spec.kind)
        if spec.each is None:
            if kind.roles and not kind.starts:
                raise ConfigError(
                    f"{path}: stages.{name} reads rows; say each: chain or each: apart, a stage a domain."
                )
            parent = None if spec.parent is None else last(spec.parent, f"stages.{name}.from")
            others = tuple(each for other in spec.others for each in made.get(other, [other]))
            # General text, of which a base is made and on which a stage measures, is read as the first domain has it.
            domain = domains[0] if kind.starts or kind.measures else None
            stages[name] = spec.model_copy(update={"parent": parent, "others": others, "domain": domain})
            continue
        if issubclass(kind.settings, MergeSettings):
            raise ConfigError(
                f"{path}: stages.{name}.each: a merge names the models that it takes, so there is one for all domains. "
                "Leave each out; `with: [<stage>]` then stands for those of all domains."
            )
        for place, domain in enumerate(domains):
            parent = str(spec.parent)
            if spec.each == "chain" and place:
                parent = made[name][place - 1]
            elif spec.each == "chain":
                parent = last(parent, f"stages.{name}.from")
            elif parent in made:
                parent = made[parent][place]
            others = tuple(made[other][place] if other in made else other for other in spec.others)
            changed = {"parent": parent, "others": others, "domain": domain, "each": None}
            stages[made[name][place]] = spec.model_copy(update={**changed, "settings": spec.settings or name})
    _require_names(stages, path)
    raw = pipeline.model_dump(by_alias=True) | {
        "stages": {name: spec.model_dump(by_alias=True) for name, spec in stages.items()},
        "exam": [each for name in pipeline.exam for each in made.get(name, [name])],
        "publish": last(pipeline.publish, "publish"),
        "settings": {name: _members(values, made) for name, values in pipeline.settings.items()},
        "domains": list(domains),
    }
    return parse_pipeline(raw, path)


def _require_names(stages: Mapping[str, StageSpec], path: str) -> None:
    """Check that what a stage of a domain reads has different names in a run of that domain. Raises ConfigError."""
    for name, spec in stages.items():
        taken: dict[str, str] = {}
        for other in filter(None, [spec.parent, *spec.others] if spec.domain else []):
            called = stages[other].called(other)
            if taken.setdefault(called, other) != other:
                raise ConfigError(
                    f"{path}: stages.{name} reads {taken[called]} and {other}, which are both '{called}' in a run of "
                    f"{spec.domain} alone. Leave out `settings: {called}` where it gives one of them that name."
                )


def _members(values: Any, made: Mapping[str, Sequence[str]]) -> Any:
    """Return the settings of a stage; models of a merge that stand for one of each domain are all of them."""
    if not isinstance(values, Mapping) or not isinstance(models := values.get("models"), Mapping):
        return values
    return {**values, "models": {each: given for name, given in models.items() for each in made.get(name, [name])}}


def _template(words: Mapping[str, str], repository: Path) -> Pipeline:
    """Return the pipeline for several domains that the command line names. Raises ConfigError where it is for one."""
    folder, name = repository / "pipelines" / SEQUENCES, words.get("pipeline", DEFAULT)
    if name not in names_in(folder) and name in names_in(folder.parent):
        raise ConfigError(
            f"pipeline={name} is for one domain. For several there is {', '.join(names_in(folder))}; your own stands "
            f"in pipelines/{SEQUENCES}/."
        )
    return read_pipeline(folder, name)


def consents_of(given: str | None, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return, for each domain whose code may run, the word that allows it.

    `given` has commas between them, each a name or name@digest. Raises ConfigError for another's name.
    """
    found: dict[str, dict[str, str]] = {}
    for word in [] if given is None else [word.strip() for word in given.split(",")]:
        domain = word.partition("@")[0]
        if domain not in names or domain in found:
            what = "named twice" if domain in found else "none of the domains"
            raise ConfigError(
                f"{ALLOW_CODE}={given}: {domain!r} is {what}; expected some of {', '.join(names)}, with commas between "
                "them."
            )
        found[domain] = {ALLOW_CODE: word}
    return found


def _require_one_base(members: Mapping[str, Resolved]) -> None:
    """Check that all domains start from one model. Raises ConfigError with the first setting that differs."""
    (one, first), *others = members.items()
    for other, member in others:
        a, b = ({key: m.config.model_dump(mode="json")[key] for key in ALIKE} for m in (first, member))
        flat, differs = flatten(a), flatten(b)
        for key in dict.fromkeys([*flat, *differs]):
            if flat.get(key) != differs.get(key):
                raise ConfigError(
                    f"domains={','.join(members)}: a chain has one base, and {key} is {flat.get(key)!r} for {one} and "
                    f"{differs.get(key)!r} for {other} ({member.origin_of(key) or 'default'}). Set {key} on the "
                    "command line, or leave one of them out."
                )


def _card(members: Mapping[str, Resolved]) -> CardSettings:
    """Return what the card says of use and limits: what each domain says, by name."""
    found = {domain: member.config.stages["card"] for domain, member in members.items()}
    said = {domain: settings for domain, settings in found.items() if isinstance(settings, CardSettings)}

    def together(key: str) -> str:
        texts = {domain: getattr(settings, key).strip() for domain, settings in said.items()}
        return "\n\n".join(f"{domain}: {text}" for domain, text in texts.items() if text)

    tags = tuple(dict.fromkeys(tag for settings in said.values() for tag in settings.tags))
    use, limits = together("intended_use"), together("limits_of_use")
    return next(iter(said.values())).model_copy(update={"intended_use": use, "limits_of_use": limits, "tags": tags})


def _publish(members: Mapping[str, Resolved]) -> PublishSettings:
    """Return how the result is published: as the first domain says; a licence holds where all of them say it."""
    found = [member.config.stages["publish"] for member in members.values()]
    all_of_them = [settings for settings in found if isinstance(settings, PublishSettings)]
    licences = {settings.licence for settings in all_of_them}
    return all_of_them[0] if len(licences) == 1 else all_of_them[0].model_copy(update={"licence": None})
