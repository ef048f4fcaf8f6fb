"""Half of the weights of a model's linear layers to zero, in the 2:4 pattern, by training.

Usage: named by a pipeline as `sparse: {kind: prune, from: cpt, settings: cpt}`.

CAST (arXiv 2509.25996): the stage reads what CPT reads, learns from it and from the stage before, and lets the weights
outside of the pattern decay to zero. The result is a plain checkpoint of transformers' own classes. That its matrices
are 2:4 sparse is checked on the saved file. A later stage would fill the zeros, unless it has the method `keep_zeros`.
Nothing here computes faster with them: that takes a GPU, and a library with kernels for the pattern.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from common.config.batches import SHARDED
from common.config.kinds import Kind, kind_of
from common.config.node import Node
from common.config.pruning import PruneSettings
from common.config.resolve import Resolved
from common.config.stages import WithMethods
from common.errors import ConfigError
from common.models.facts import known_folder
from common.models.planned import config_after, reshaping
from common.models.sparsity.configs import OF_LAYER, check_columns, check_names, check_tensors, check_widths
from common.models.sparsity.masks import cut, linears, scale
from common.models.sparsity.record import check_sparse, write_sparsity
from common.stage import StageContext, StageReport
from common.training.adapters import load_parent
from common.training.fit import check_and_save, fit, report, text_probe
from common.training.rows.rows import build_rows

KEEPS = "keep_zeros"  # the method with which a later stage keeps them


def run(context: StageContext) -> StageReport:
    """Return the parent, trained until half of its weights can be cut. Raises ContractError where they are not zero."""
    settings = cast(PruneSettings, context.settings)
    model, tokenizer = load_parent(context)
    matrices = check_modules(model, settings, context.stage)
    if settings.zeros == "decay":
        scale(model, settings.modules, settings.scale_groups)
    rows = build_rows(context, tokenizer, role="cpt", assistant_only=False)
    trained = fit(context, model, tokenizer, rows)
    if trained.model is None:  # of another process
        return report(context, trained, {}, rows.counts, rows.read)
    if settings.zeros == "cut":
        scale(trained.model, settings.modules, groups=1)  # by 1: what is cut are such layers
    lost = cut(trained.model)
    measured = check_and_save(context, trained, tokenizer, probe=text_probe(tokenizer))
    sparsity = check_sparse(context.out, matrices, context.stage)
    write_sparsity(context.out, sparsity)
    facts = {**sparsity.as_dict(), **lost, "modules": list(settings.modules)}
    context.console.line(
        f"  {context.stage}: {sparsity.zeros:,} of {sparsity.parameters:,} weights are zero, 2:4 in "
        f"{len(matrices)} matrices; cutting them took {lost['cut']:.2%} of their squared norm"
    )
    return report(context, trained, {**measured, "sparsity": facts}, rows.counts, rows.read)


def check_modules(model: Any, settings: PruneSettings, stage: str) -> list[str]:
    """Return the matrices that will be sparse. Raises ConfigError for a name of none, and inputs that do not fit."""
    everything = linears(model)
    of_layers = [name for name in everything if OF_LAYER.search(f"{name}.weight")]  # no lm_head, which may be tied
    check_names({name.rpartition(".")[2] for name in of_layers}, settings, stage)
    found = [name for name in everything if name.rpartition(".")[2] in settings.modules]
    for name in found:
        check_columns(name, everything[name].weight.shape[1], settings, stage)
    return [f"{name}.weight" for name in found]


def check(node: Node, settings: PruneSettings, resolved: Resolved) -> None:
    """Check the model before, as far as it is known, and the stages behind. Raises ConfigError."""
    run = resolved.config.run
    if run.parallelism in SHARDED and run.processes > 1:
        raise ConfigError(
            f"{node.name} with run.parallelism={run.parallelism}: its optimizer draws the pattern over whole matrices, "
            "and shards are parts of them. Use run.parallelism=ddp."
        )
    check_widths(config_after(resolved, node.name), settings, node.name)
    if (place := known_folder(resolved.config.model)) is not None and not reshaping(resolved, node.name):
        check_tensors(place, settings, node.name)
    for later in made_from(resolved.nodes, node.name):
        _check_later(node, later, resolved)


def _check_later(node: Node, later: Node, resolved: Resolved) -> None:
    """Check that a stage whose weights come from a sparse model keeps its zeros. Raises ConfigError."""
    settings = resolved.config.stages[later.name]
    if isinstance(settings, WithMethods) and KEEPS in settings.methods:
        return
    advice = f"Put {node.name} behind it, or use a pipeline without one of them"
    if isinstance(settings, WithMethods) and not isinstance(settings, PruneSettings):
        advice = f"Set {later.name}.methods.{KEEPS}={{}}, which keeps them"
    raise ConfigError(f"{later.name} ({later.kind}) would fill the zeros that {node.name} before it makes. {advice}.")


def made_from(nodes: Sequence[Node], name: str) -> list[Node]:
    """Return the stages whose weights are made of those of the stage `name`, through any number of others, in order."""
    names, found = {name}, list[Node]()
    for node in nodes:
        if kind_of(node.kind).makes == "language model" and not names.isdisjoint(node.inputs):
            names.add(node.name)
            found.append(node)
    return found


KIND = Kind(
    name="prune", settings=PruneSettings, run=run, check=check, roles=("cpt", "replay"), shareable=True,
    phrase="half of the weights of its linear layers made zero, 2 of each 4 (CAST, arXiv 2509.25996)", part="text",
)  # fmt: skip
