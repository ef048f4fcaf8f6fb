"""What an option of a pasted TRL block is here: rules that read it, and set, note or refuse.

Usage: `rule = is_("sequence_length")`, then `rule(block, "max_length")`; which option has which rule is
`common.config.trl_mappings`.

Nothing is guessed: an option is taken as the setting of ours that means the same, shown as without effect where
no result depends on it, and refused where it contradicts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from common.config.answering import OnlineSettings
from common.config.stages import KtoSettings, PreferenceSettings, TrainingSettings
from common.config.trl_block import TrlBlock
from common.config.trl_options import default_option

Rule = Callable[[TrlBlock, str], None]
NEUTRAL: tuple[Any, ...] = (None, False, "no", "none", "", {}, [])  # values that ask for nothing
SINGLE = "Leave it out."


def is_(key: str) -> Rule:
    """Return the rule of an option that is one of our settings under another name."""

    def rule(block: TrlBlock, name: str) -> None:
        if (value := block.value(name)) is not None:
            block.set(key, value, name)

    return rule


def unused(text: str) -> Rule:
    """Return the rule of an option that changes no result: it has no effect, which a plan shows."""

    def rule(block: TrlBlock, name: str) -> None:
        if block.value(name) not in NEUTRAL:
            block.tell(f"no effect ({text})", name)

    return rule


def refused(reason: str, *alike: Any) -> Rule:
    """Return the rule of an option that is refused, but for values that ask for nothing or are `alike`."""

    def rule(block: TrlBlock, name: str) -> None:
        if block.value(name) not in (*NEUTRAL, *alike):
            raise block.refused(name, reason)

    return rule


def epochs(block: TrlBlock, name: str) -> None:
    """`num_train_epochs`, unless `max_steps` counts, as for TRL."""
    passes = block.value(name)
    if passes is None or _steps_asked(block):
        return
    if _budget_is_ours(block, "epochs", passes, name):
        block.set("epochs", float(passes), name)


def steps(block: TrlBlock, name: str) -> None:
    """`max_steps`: a budget of as many whole batches, or our own number of steps. Below one it asks for nothing."""
    steps = _steps_asked(block)
    if not steps:
        return
    if not issubclass(block.settings, TrainingSettings):
        if _budget_is_ours(block, "steps", steps, name):
            block.set("steps", steps, name)
        return
    tokens = steps * block.now("batch_tokens")
    if _budget_is_ours(block, "tokens", tokens, name):
        block.set("tokens", tokens, name, because=f" ({steps} steps of batch_tokens={block.now('batch_tokens')})")


def _steps_asked(block: TrlBlock) -> int:
    return max(0, int(block.value("max_steps", -1)))


def _budget_is_ours(block: TrlBlock, key: str, value: Any, name: str) -> bool:
    """Whether an option says how long a stage trains, and no stronger layer says it in another unit of ours.

    Raises ConfigError where the same part of a layer says both.
    """
    given = block.strongest(name)
    for other in ("tokens", "epochs", "steps"):
        own = block.own.get(other)
        if other == key or own is None or own.rank < given.rank:
            continue
        if own.rank == given.rank:
            raise block.contradiction(f"{block.stage}.{other}={own.value}", own, name)
        block.tell(f"{other}={own.value} of the {own.label} holds instead", name)
        return False
    return True


def batch(block: TrlBlock, name: str) -> None:
    """Rows of one device times accumulation times processes: what a step learns from, and what fits at once."""
    names = ("per_device_train_batch_size", "gradient_accumulation_steps")
    if name != next(found for found in names if found in block.words):
        return  # the first of them has taken both
    each, accumulated = (block.value(found) or default_option(block.settings.trainer, found) for found in names)
    processes = block.processes
    rows = each * accumulated * processes
    count = f"{each} x {accumulated}" + (f" x {processes} processes" if processes > 1 else "")
    if issubclass(block.settings, OnlineSettings):
        key, length = block.settings.batch_key, block.now("prompt_tokens") + block.now("answer_tokens")
        many, unit = block.settings.answers_each(block.now("samples")), block.settings.unit
        value, odd = divmod(rows, many)
        because = f" ({count} answers, {many} to a {unit.removesuffix('s')})"
        if odd or not value:
            raise block.refused(
                names[0] if names[0] in block.words else names[1],
                f"makes {count} = {rows} answers a step, which are no whole number of {unit} with "
                f"{many} answers each ({{stage}}.samples, num_generations). Change one of them.",
            )
    elif issubclass(block.settings, PreferenceSettings):
        key, value, length, because = "batch_pairs", rows, 2 * block.now("sequence_length"), f" ({count})"
        if issubclass(block.settings, KtoSettings):  # whose rows are single answers
            value, odd = divmod(rows, 2)
            each, because = each / 2, f" ({count} answers, two to a pair)"
            if odd:
                raise block.refused(names[0], f"makes {rows} answers a step, which are no whole number of pairs.")
    else:
        key, length = "batch_tokens", block.now("sequence_length")
        whole = "" if "packing" in block.words else "; full ones, where TRL pads one example in each: packing: false"
        value, because = rows * length, f" ({count} rows of {length} tokens{whole})"
    block.set(key, value, *names, because=because)
    if each and "micro_batch_tokens" not in block.own:
        block.set("micro_batch_tokens", int(each * length), *names)


def seed(block: TrlBlock, name: str) -> None:
    """`seed` and `data_seed`: the seed of the run, which is one."""
    seeds = {block.value(found) for found in ("seed", "data_seed")} - {None}
    if len(seeds) > 1:
        raise block.refused("data_seed", f"is another than seed={block.value('seed')}. A run has one seed. {SINGLE}")
    if seeds:
        block.set_run_wide("seed", seeds.pop(), name)


def packing(block: TrlBlock, name: str) -> None:
    """`packing` of whole documents is ours; anything else is TRL's own, which then gets all that was given."""
    if block.value(name) is None:
        return
    ours = block.now("packing") == "isolated"
    strategy = block.value("packing_strategy", "bfd")
    if ours and block.value(name) and strategy == "bfd":
        block.set("packing", "isolated", name, "packing_strategy", because=" (whole documents, kept apart)")
        return
    if ours:
        block.set("packing", "trl", name, "packing_strategy", because=" (TRL's own rows)")
    block.keep(name)


def of_trl(text: str = "", *alike: Any) -> Rule:
    """Return the rule of an option of TRL's own row preparation: kept where TRL prepares the rows, else `text`."""

    def rule(block: TrlBlock, name: str) -> None:
        if block.now("packing") == "trl":
            block.keep(name)
        elif text:
            unused(text)(block, name)
        else:
            refused("belongs to TRL's own row preparation; set {stage}.packing=trl to use it.", *alike)(block, name)

    return rule


def completion_only(block: TrlBlock, name: str) -> None:
    """Only the answers are learned, which is so where conversations are."""
    learns = getattr(block.settings, "learns_answers", False)
    if block.now("packing") == "trl":
        block.keep(name)
    elif block.value(name) not in (None, learns):
        instead = "{stage}.train.assistant_only_loss=false" if learns else "a stage of kind sft"
        raise block.refused(name, f"is not so here: set {instead} instead.")


def best(block: TrlBlock, name: str) -> None:
    """`load_best_model_at_end`: the weights with the lowest validation loss, where rows are kept for one."""
    if not block.value(name):
        return
    if issubclass(block.settings, OnlineSettings):
        block.tell("no effect (the best weights by held-out prompts are kept)", name)
    elif not issubclass(block.settings, TrainingSettings):
        raise block.refused(name, f"cannot be set here: the last weights are kept. {SINGLE}")
    elif not block.now("validation.share"):
        raise block.refused(name, "needs rows to choose by; add {stage}.validation.share=0.01, or leave it out.")
    else:
        block.set("validation.keep", "best", name)


def report_to(block: TrlBlock, name: str) -> None:
    """Trackers are those of the run: a chain has one place for its curves."""
    given = block.value(name)
    names = [str(one) for one in (given if isinstance(given, list) else [given]) if one not in NEUTRAL]
    if names:
        block.set_run_wide("run.report_to", ", ".join(names), name)


def pushed(block: TrlBlock, name: str) -> None:
    """`push_to_hub` and `hub_model_id`: publishing is a stage of its own, behind the exam and the card."""
    if block.value(name) in NEUTRAL:
        return
    to = block.value("hub_model_id")
    to = to if isinstance(to, str) and "/" in to else "<owner>/<name>"
    raise block.refused(name, f"cannot be set here: set publish.to=hub:{to} instead, which publishes the last model.")


def by_processes(key: str) -> Rule:
    return refused(f"is derived here; set {key} and run.processes instead.")


def answers_used_once(block: TrlBlock, name: str) -> None:
    """Answers are used once: what says so is accepted, in the units of TRL."""
    value = block.value(name)
    accumulated = block.value("gradient_accumulation_steps") or 1
    once = {"num_iterations": 1, "steps_per_generation": accumulated}
    if name == "generation_batch_size":
        assert issubclass(block.settings, OnlineSettings), "others have no such option"
        once[name] = block.now(block.settings.batch_key) * block.settings.answers_each(block.now("samples"))
    if value is not None and value != once[name]:
        raise block.refused(
            name, f"cannot be {value} here: answers are used once, in the step after they are written, so that a run "
            f"that was stopped can go on exactly. Leave it out, or set {once[name]}.",
        )  # fmt: skip


def reward_weights(block: TrlBlock, name: str) -> None:
    """`reward_weights` are our rewards' weights, where a stage names rewards."""
    if "rewards" in block.settings.model_fields:
        refused("is derived here; set {stage}.rewards.<name>.weight instead.")(block, name)
    else:
        refused(f"cannot be set here: its rewards are given. {SINGLE}")(block, name)


def shuffled(block: TrlBlock, name: str) -> None:
    if block.value(name) is False:
        raise block.refused(name, "cannot be false here: prompts come in a seeded order, a new one for every pass.")
