"""Check that all that some stages need is there before any begins: machine, libraries, rows, benchmarks.

Usage: `check_plan(plan)`, or `check_inputs(resolved, corpus, nodes)` for some stages, from `common.engine.run`.

What follows from settings alone is checked by `common.engine.preflight.settings`, names and types of options by
`common.config.trl_options`.
"""

from __future__ import annotations

import importlib
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from common.config.answering import OnlineSettings
from common.config.blocks import chosen
from common.config.cleaning import DataSettings, cleaned_roles
from common.config.kinds import kind_of
from common.config.node import Node
from common.config.resolve import Resolved
from common.config.schema import Config
from common.config.stages import LearningSettings, MergeSettings, PreferenceSettings, TrainingSettings
from common.config.trl_options import CLASSES
from common.data.cleaning.clean import Cleaning
from common.data.cleaning.runners import check_runner
from common.data.corpus import Corpus
from common.data.scorers import scorers_of
from common.data.sizes import RowSizes, Sizes
from common.engine.corpora import data_folder
from common.engine.environment import needs_hub, prepare
from common.engine.plan import Plan
from common.engine.preflight import hardware
from common.engine.preflight.backends import check_backends, learning
from common.engine.preflight.benchmarks import NONE, Benchmarks, load_benchmarks, note_benchmarks
from common.engine.preflight.sources import empty_exam
from common.errors import ConfigError, DataError, RecipeError, first_line
from common.models.device import device_of
from common.stage import data_roles
from common.system.importing import importing
from common.training.distributed import ranks
from common.training.merging import check_merge
from common.training.options import preference_options, rewarded_options, sft_options


def check_plan(plan: Plan) -> dict[str, Benchmarks]:
    """Check what all parts of a plan need, and note what their benchmarks ask. Returns that by domain.

    Whether the Hub is asked is decided once, for all of them. Raises as `check_inputs` does.
    """
    parts = {domain: (part, [step.node for step in part.to_do]) for domain, part in plan.by_domain.items()}
    for part, nodes in parts.values():
        _check_machine(part.resolved, nodes)
    asking = [_asks_hub(part.resolved, part.corpus, nodes) for part, nodes in parts.values() if nodes]
    if asking:
        prepare(plan.resolved.config.run, asks_hub=any(asking))
    benchmarks = {}
    for domain, (part, nodes) in parts.items():
        benchmarks[domain] = _check(part.resolved, part.corpus, nodes, part.outlook.sizes) if nodes else NONE
        note_benchmarks(benchmarks[domain], part.resolved, nodes)
    return benchmarks


def check_inputs(
    resolved: Resolved, corpus: Corpus, nodes: Sequence[Node], sizes: RowSizes | None = None,
    benchmarks: Benchmarks | None = None,
) -> Benchmarks:  # fmt: skip
    """Read the local rows, one of each data set of the Hub, and the benchmarks, that some stages need.

    Roles that `sizes` have read, in whole or up to their limit, are not read again. Nor are `benchmarks` loaded again
    that a process of this run has loaded.
    Returns what the benchmarks ask, and those that exams go without, as nobody asked for them by name.
    Raises DataError with all that is wrong, or ConfigError where only a benchmark's name is.
    """
    if not nodes:
        return NONE
    _check_machine(resolved, nodes)
    prepare(resolved.config.run, asks_hub=_asks_hub(resolved, corpus, nodes))
    return _check(resolved, corpus, nodes, sizes, benchmarks)


def _check_machine(resolved: Resolved, nodes: Sequence[Node]) -> None:
    if any(kind_of(node.kind).holds_model for node in nodes) and (found := hardware.missing(resolved)):
        raise ConfigError(hardware.explanation(resolved, found))


def _asks_hub(resolved: Resolved, corpus: Corpus, nodes: Sequence[Node]) -> bool:
    return needs_hub(resolved.config, corpus, [resolved.config.stages[node.name] for node in nodes])


def _check(
    resolved: Resolved, corpus: Corpus, nodes: Sequence[Node], sizes: RowSizes | None = None,
    benchmarks: Benchmarks | None = None,
) -> Benchmarks:  # fmt: skip
    config = resolved.config
    stages = {node.name: config.stages[node.name] for node in nodes}
    check_backends(config, stages)
    check_arguments(config, nodes)
    for name, settings in stages.items():
        if isinstance(settings, MergeSettings):
            check_merge(settings, name)
        elif isinstance(settings, DataSettings):
            check_blocks(resolved, settings)
    problems: list[RecipeError] = []
    roles = {
        n.name: data_roles(n.kind, corpus, stages[n.name], sampled=n.sampled, cleaned=cleaned_roles(n.inputs))
        for n in nodes
    }
    problems += [problem for name in roles if "replay" in roles[name] for problem in _replay(name, config, corpus)]
    try:
        needed = dict.fromkeys(itertools.chain(*roles.values()))
        corpus.check_rows([role for role in needed if not (sizes and _is_read(sizes.of(role)))])
    except DataError as error:
        problems.append(error)
    try:
        benchmarks = benchmarks or load_benchmarks(resolved, corpus, nodes)
        missing = benchmarks.left_out
        problems += map(DataError, empty_exam(resolved, nodes, corpus, missing) if missing else ())
    except (ConfigError, DataError) as error:
        problems.append(error)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise DataError("\n".join(map(str, problems)))
    assert benchmarks is not None, "else there is a problem"
    return benchmarks


def check_blocks(resolved: Resolved, settings: DataSettings) -> None:
    """Begin every block of a stage that cleans, without rows. Raises what it says of its settings, or of its files."""
    check_runner(resolved.config.run.data_executor)
    with tempfile.TemporaryDirectory() as folder:
        scorers = scorers_of(resolved, settings)
        data = data_folder(resolved)
        Cleaning(Path(folder), settings.role, chosen(settings.blocks), scorers=scorers, data=data).check()


def _is_read(found: Sizes | None) -> bool:
    """Whether rows of a role were read without a fault, and each of its sources gives some."""
    return found is not None and bool(found.counts) and all(count.rows_out for count in found.counts)


def _replay(name: str, config: Config, corpus: Corpus) -> Iterator[DataError]:
    """Yield what is wrong where no source of replay has rows that a stage can learn from."""
    settings, sources = config.stages[name], corpus.conversations("replay")
    if settings.measuring:
        if not sources:
            yield DataError(
                f"{name} measures the model on general text, and no source has role: replay. Add one, or choose "
                "another method."
            )
        return
    assert isinstance(settings, TrainingSettings), f"stage {name} has no replay"
    if any(sources.values()) or (sources and not settings.assistant_only):
        return
    wanted = "conversations" if settings.assistant_only else "texts or conversations"
    found = f"{', '.join(map(repr, sources))} has texts" if sources else "there is none"
    yield DataError(
        f"{name}.replay={settings.replay:g} needs a source of {wanted} with role: replay; {found}. Add one, or set "
        f"{name}.replay=0."
    )


def check_arguments(config: Config, nodes: Sequence[Node]) -> None:
    """Build the arguments of every stage that trains, with TRL's class. Raises ConfigError for the first refused.

    What it refuses beyond names and types (numbers that do not divide, a device that lacks something) only it can say.
    Only a process that trains by itself does this: building them takes hold of a GPU, and meets the other processes.
    """
    if ranks.size() > 1 or (config.run.processes > 1 and device_of(config.run) == "cuda"):
        return
    kinds = {node.name: node.kind for node in nodes}
    with tempfile.TemporaryDirectory() as folder:
        for name, settings in learning(config, kinds):
            package, path, cls = CLASSES[settings.trainer][-1]
            module = f"{package}.{path.removesuffix('.py').replace('/', '.')}"
            try:
                options = _options(name, settings, config, Path(folder))
                with importing():
                    found = importlib.import_module(module)
                getattr(found, cls)(**{**kind_of(kinds[name]).defaults, **options})
            except (TypeError, ValueError, ImportError) as error:
                raise ConfigError(f"{name}.train: TRL refuses these options: {first_line(error)}") from error


def _options(name: str, settings: LearningSettings, config: Config, folder: Path) -> dict[str, Any]:
    """Return the options that a stage gives its class. The numbers of steps, pairs and prompts are not known yet."""
    if isinstance(settings, TrainingSettings):
        return sft_options(settings, config, folder, steps=100, stage=name)
    if isinstance(settings, PreferenceSettings):
        return preference_options(settings, config, folder, num_pairs=1000, stage=name)
    assert isinstance(settings, OnlineSettings), f"stage {name} has no trainer"
    return rewarded_options(settings, config, folder, num_prompts=1000, stage=name)
