"""The rows of one stage as it trains on them: found, read and masked by its own code, without training anything.

Usage: `preview = preview_stage(resolved, "sft", at=1, number=5)`.

It needs the tokenizer that the stage will have, and where the stage learns from sampled answers, these. Data that are
too large to be read at once are read in part, as they are before a run. It writes to a temporary folder only.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.config.answering import AnsweringSettings, DrawingSettings
from common.config.cleaning import PREFIX, cleaned_roles, from_lineage
from common.config.continued import behind_of
from common.config.kinds import kind_of
from common.config.node import Node
from common.config.resolve import Resolved
from common.config.rl_pretrain import RlPretrainSettings
from common.config.stages import BaseSettings, PreferenceSettings, RewardSettings, TrainingSettings
from common.console import Console
from common.data.cleaned import Cleaned
from common.data.leading import Leading
from common.engine.environment import needs_hub, prepare
from common.engine.plan import Plan, Step, make_plan, start_of
from common.engine.preflight.benchmarks import NONE, Benchmarks, load_benchmarks, noted_benchmarks
from common.engine.preflight.trial import PRETRAIN_BYTES
from common.engine.repair import damage_of, require_unchanged
from common.errors import ConfigError, DataError, StoreError, first_line
from common.models import checkpoint
from common.models.source import find_tokenizer
from common.report.views import Preview
from common.stage import StageContext, data_roles, holds_apart
from common.stages.base import make_tokenizer, tokenizer_of
from common.store.artifacts import Artifact, writing
from common.store.runs import run_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IN_PART = (
    "The data are too large to be read at once, so only the first rows of each source were: what is shown is masked as "
    "trained, but the whole data are packed and ordered otherwise, and all counts are of this part. full=true reads all"
)


OF_LINEAGE = (
    "The rows that are replayed are drawn from what the chain has read before; they are not shown, and not among those "
    "that are counted here"
)

NOT_BEHIND = (
    "The stage goes on behind what the stage before has read (continue_data), but of this part the first rows are shown"
)


def preview_stage(resolved: Resolved, name: str, *, at: int, number: int, full: bool = False) -> Preview:
    """Return rows of a stage from `at` on, counted from 1.

    Raises ConfigError for a stage that trains on no rows, and DataError where its tokenizer or its rows are missing.
    """
    node = next(node for node in resolved.nodes if node.name == name)
    _require_rows(node, resolved)
    whole = make_plan(resolved)
    plan = replace(whole.part(node), steps=whole.steps)
    resolved, settings = plan.resolved, plan.resolved.config.stages[name]
    prepare(resolved.config.run, asks_hub=needs_hub(resolved.config, plan.corpus, [settings]))
    inputs = dict(_inputs(node, plan))
    tokenizer = _tokenizer(node, plan)
    part = not full and not cleaned_roles(inputs) and not _is_small(node, plan)
    assert plan.outlook.sizes is not None, "a plan knows its corpus"
    corpus: Any = Leading(plan.corpus, plan.outlook.sizes) if part else _corpus(plan, inputs)
    temporary = Path(tempfile.gettempdir())
    with writing(temporary), tempfile.TemporaryDirectory(prefix="preview-") as folder:
        benchmarks, missing = _benchmarks(node, plan)
        context = replace(_context(node, plan, corpus, inputs, Path(folder)), benchmarks=benchmarks.passages)
        drawn = list[str]()
        replays = from_lineage(settings) and bool(getattr(settings, "replay", 0.0))
        if replays:
            own = settings.model_copy(update={"replay": 0.0, "replay_from": "role"})
            context = replace(context, settings=own)
            drawn.append(OF_LINEAGE)
        if part and context.behind:  # a part would end before what is to be passed over
            context = replace(context, behind={})
            drawn.append(NOT_BEHIND)
        preview = _rows_of(context, tokenizer, at, number)
    return replace(preview, notes=(*([IN_PART] if part else []), *drawn, *missing, *preview.notes))


def _benchmarks(node: Node, plan: Plan) -> tuple[Benchmarks, list[str]]:
    """Return what the benchmarks of the run ask, as far as it can be loaded, and what to say where it cannot."""
    if not holds_apart(node, plan.resolved.config):
        return NONE, []
    try:
        return noted_benchmarks(plan.resolved) or load_benchmarks(plan.resolved, plan.corpus, [node]), []
    except (ConfigError, DataError) as error:
        return NONE, [f"Rows that repeat a benchmark are among these, and the run would stop: {first_line(error)}"]


def _rows_of(context: StageContext, tokenizer: PreTrainedTokenizerBase, at: int, number: int) -> Preview:
    from common.engine.preview.answers import preference_rows, prompt_rows
    from common.engine.preview.packed import packed_rows
    from common.engine.preview.paragraphs import paragraph_rows

    if isinstance(context.settings, RlPretrainSettings):
        return paragraph_rows(context, tokenizer, at, number)
    if isinstance(context.settings, AnsweringSettings):
        return prompt_rows(context, tokenizer, at, number)
    if isinstance(context.settings, PreferenceSettings):
        return preference_rows(context, tokenizer, at, number)
    return packed_rows(context, tokenizer, at, number)


def _require_rows(node: Node, resolved: Resolved) -> None:
    """Check that a stage reads rows of its own. Raises ConfigError."""
    stages = resolved.config.stages
    settings = stages[node.name]
    others = [other.name for other in resolved.nodes if _reads(other, resolved)]
    trains = f"Stages that do: {', '.join(others)}." if others else "No stage of this pipeline does."
    if _reads(node, resolved):
        return
    if isinstance(settings, BaseSettings):
        why = "takes a checkpoint as it is (model.path)"
    elif isinstance(settings, RewardSettings):
        why = f"takes a finished reward model ({node.name}.path)"
    else:
        why = f"is of kind {node.kind}, which trains on nothing"
    raise ConfigError(f"Stage {node.name} {why}, so it has no rows to show. {trains}")


def _reads(node: Node, resolved: Resolved) -> bool:
    settings = resolved.config.stages[node.name]
    if isinstance(settings, BaseSettings):
        return resolved.config.model.path is None
    if isinstance(settings, RewardSettings):
        return settings.path is None
    return isinstance(settings, TrainingSettings | PreferenceSettings | DrawingSettings)


def _inputs(node: Node, plan: Plan) -> Iterator[tuple[str, Artifact]]:
    """Yield the stage's inputs that are made. Raises DataError for one that its rows come from and that is missing."""
    steps = {step.node.name: step for step in plan.steps}
    settings = plan.resolved.config.stages[node.name]
    hard = getattr(settings, "hard", None) is not None
    for name in node.inputs:
        step = steps[name]
        samples, cleans = kind_of(step.node.kind).brings_rows, name.startswith(PREFIX)
        if step.state == "cached" and step.artifact is not None:
            if samples or hard or cleans:
                require_unchanged({name: step.artifact}, run_of(plan.resolved))
            yield name, step.artifact
        elif cleans:
            raise _missing(step, plan, f"Stage {node.name} reads the cleaned rows of the stage {name}")
        elif samples or (hard and name == node.parent and not node.sampled):
            what = "chooses prompts by pass rates" if hard else "learns from answers"
            raise _missing(step, plan, f"Stage {node.name} {what} of the stage {name}")


def _missing(step: Step, plan: Plan, why: str) -> DataError | StoreError:
    """Return the error for a result that is not there, with the command that makes it."""
    if message := damage_of(step, run_of(plan.resolved)):
        return StoreError(message)
    several, name = plan.resolved.pipeline.domains, step.node.name
    chosen = f"domains={','.join(several)}" if several else f"domain={plan.resolved.config.domain}"
    command = f"`just run {chosen}` with the same settings, or `just rerun {chosen} stage={name}`"
    if name.startswith(PREFIX):
        command = f"`just data {chosen} role={name.removeprefix(PREFIX)}` with the same settings"
    return DataError(
        f"{why}, which is not there with these settings ({step.state}: {step.reasons[0]}). Make it first: {command}."
    )


def _corpus(plan: Plan, inputs: Mapping[str, Artifact]) -> Any:
    """Return the corpus of a stage: roles that were cleaned before come from its inputs."""
    cleaned = {role: inputs[PREFIX + role].path for role in cleaned_roles(inputs)}
    return Cleaned(plan.corpus, cleaned) if cleaned else plan.corpus


def _tokenizer(node: Node, plan: Plan) -> PreTrainedTokenizerBase:
    """Return the tokenizer that the stage will have: that of the beginning of its chain, or of a stage that extends it.

    It is that of the nearest stage before which is made; else that of the checkpoint as the base takes it; else it is
    trained as the base does, where that takes a moment. Raises DataError where it cannot be known.
    """
    config, steps = plan.resolved.config, {step.node.name: step for step in plan.steps}
    name = node.parent
    while name is not None:
        step = steps[name]
        if step.state == "cached" and step.artifact is not None:
            require_unchanged({name: step.artifact}, run_of(plan.resolved))
            return checkpoint.load_tokenizer(step.artifact.path, config.model)
        if kind_of(step.node.kind).changes_tokenizer:
            raise _missing(step, plan, f"The tokenizer of stage {node.name} is made by the stage {name}")
        name = step.node.parent
    first = steps[start_of(plan.resolved).name]
    if config.model.path is not None:
        place = find_tokenizer(config.model)
        if place is None:
            raise _missing(first, plan, f"The tokenizer of {config.model.path} comes with the stage {first.node.name}")
        return tokenizer_of(place, config.model)
    found = plan.outlook.sizes.of("pretrain") if plan.outlook.sizes is not None else None
    if found is None or not found.whole or found.rows * found.mean_bytes > PRETRAIN_BYTES:
        raise _missing(first, plan, f"The tokenizer is trained in the stage {first.node.name}")
    return make_tokenizer(_context(first.node, plan, _corpus(plan, dict(_inputs(first.node, plan))), {}, Path()))


def _is_small(node: Node, plan: Plan) -> bool:
    """Whether all rows that the stage reads are on this machine and few enough to be counted by a plan."""
    config, sizes = plan.resolved.config, plan.outlook.sizes
    roles = data_roles(node.kind, plan.corpus, config.stages[node.name], sampled=node.sampled)
    found = [sizes.of(role) for role in roles if sizes is not None and role != "preference_heldout"]
    return all(size is not None and size.whole for size in found)


def _context(node: Node, plan: Plan, corpus: Any, inputs: dict[str, Artifact], folder: Path) -> StageContext:
    config = plan.resolved.config
    return StageContext(
        node.name, node.kind, config.stages[node.name], config, inputs, node.parent, corpus, folder, folder, folder,
        Console("quiet"), behind=behind_of(node, plan.resolved.nodes, config.stages),
    )  # fmt: skip
