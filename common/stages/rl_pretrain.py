r"""RL pre-training: one model masks spans of the domain's texts and predicts what they hide (PretrainZero).

Usage: named by a pipeline as `rl_pretrain: {kind: rl_pretrain, from: cpt}`.

PretrainZero (arXiv 2512.03442): each step, the policy copies spans of 32 paragraphs into \mask{}, 8 of each, and
predicts each of these 8 times. Masks earn more the less often they are predicted, and nothing where they never are: a
min-max game on plain text. GRPO without a KL term, on both kinds of answers in one batch. Groups that agree are
dropped, and the ratio is clipped higher above than below (DAPO, arXiv 2503.14476). The rewards are
`common.rewards.masks`, the two rounds of a step `common.training.masking`.

Ours: the prompts; groups of masks that earn alike are dropped too; answers are used once, so that the ratio is 1 and
clipping never acts; a measurement on held-out paragraphs with random masks, which stops a stage whose predictions get
worse.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, cast

from common.config.answering import WatchSettings
from common.config.batches import rewarded_steps
from common.config.kinds import Kind
from common.config.node import Node
from common.config.resolve import Resolved
from common.config.rl_pretrain import RlPretrainSettings
from common.data.accounting import check_limits
from common.data.decontaminate import guard_of
from common.errors import ConfigError, DataError
from common.evaluation.written import generate
from common.models import checkpoint
from common.models.special_tokens import stop_ids
from common.rewards.masks import random_span
from common.rewards.mix import Criterion, Mix
from common.rewards.verifiers import Answer
from common.stage import StageContext, StageReport
from common.stages.rewarded import in_order, require_whole_model
from common.training.adapters import learner_of
from common.training.distributed import ranks
from common.training.fit import TrainResult, build_trainer, check_and_save, report, trained_model
from common.training.loop.reward_monitor import RewardMonitor
from common.training.loop.trainer import TrainingLoop
from common.training.masking import COUNT, COUNTED, Masking, mask_trainer, shares
from common.training.options import rewarded_options
from common.training.own_answers import OVERLAPS, answers_left_out, skipper
from common.training.rows.paragraphs import Asking, Paragraph, read_paragraphs
from common.training.sampling import GREEDY
from common.training.speed.scoring import scoring

RIGHT = "predicted"  # the name of the reward of predictions
NOTHING: list[dict[str, str]] = [{"role": "user", "content": ""}]  # TRL wants a prompt; ours are made in each step
COURSE = 10  # parts of the steps whose means the card shows


def check(node: Node, settings: RlPretrainSettings, resolved: Resolved) -> None:
    """Check that prompts leave room for a paragraph, and what of TRL's options cannot be here. Raises ConfigError."""
    for task, given in (("mask", settings.mask), ("predict", settings.predict)):
        words = len(given.prompt.split()) + settings.least_words
        if words > settings.prompt_tokens:
            raise ConfigError(
                f"{node.name}.prompt_tokens={settings.prompt_tokens}: {node.name}.{task}.prompt and a paragraph of "
                f"least_words={settings.least_words} have {words} words, so that no paragraph fits. Raise "
                "prompt_tokens."
            )
    if settings.train.get("use_vllm"):
        raise ConfigError(
            f"{node.name}.train.use_vllm=true: the prompts of a step's second round come from the first, which is "
            "written by transformers here. Leave it out."
        )
    if settings.train.get("beta"):
        raise ConfigError(
            f"{node.name}.train.beta={settings.train['beta']}: there is no KL term here, as in the paper. Leave it out."
        )


def run(context: StageContext) -> StageReport:
    """Return the parent, tuned to predict what spans of the domain's texts say, and to find such spans."""
    settings = cast(RlPretrainSettings, context.settings)
    model, tokenizer = checkpoint.load(context.parent_artifact.path, context.config.model)
    asking = Asking(tokenizer, settings)
    paragraphs, counts = read_paragraphs(context, asking, settings.most_paragraphs)
    check_limits(counts, settings.limits, context.stage)
    require_whole_model(context)
    kept = settings.watch.prompts
    if len(paragraphs) < (least := kept + settings.paragraphs_per_step):
        raise DataError(
            f"Stage {context.stage} has {len(paragraphs)} usable paragraphs and needs {least}: it keeps "
            f"{kept} from training ({context.stage}.watch.prompts) and reads "
            f"{settings.paragraphs_per_step} a step. Add sources with role: cpt, or lower these."
        )
    heldout, training = held_out(paragraphs[:kept], settings, context.config.seed), paragraphs[kept:]
    monitor = MaskMonitor(context, asking, heldout, tokenizer, settings)

    trained = _train(context, model, tokenizer, training, asking, monitor)

    probe = asking.for_prediction(heldout[0]["paragraph"], heldout[0]["span"])
    measured = check_and_save(context, trained, tokenizer, probe=probe)
    skipped = round(sum(record["no_signal"] for record in trained.log))
    metrics = {
        "paragraphs": num_read(len(training), len(trained.log), settings), "no_signal": skipped,
        "masks": course_of(trained.log, settings),
        **monitor.summary(), **measured,
    }  # fmt: skip
    left_out = answers_left_out(context, trained.log, "cpt", round(total(trained.log, "written")))
    return report(context, trained, metrics, [*counts, *left_out])


def held_out(paragraphs: Sequence[Paragraph], settings: RlPretrainSettings, seed: int) -> list[dict[str, Any]]:
    """Return rows to measure on, paragraphs with a random mask each. Raises DataError where none can have one."""
    found = []
    for number, one in enumerate(paragraphs):
        draw = random.Random(f"{seed}/held-out/{number}")
        span = random_span(one.text, draw, settings.random_words, settings.occurs_below)
        if span is not None:
            found.append({"paragraph": one.text, "span": span})
    if not found:
        raise DataError(
            f"None of {len(paragraphs)} held-out paragraphs has a span that occurs in it fewer than "
            f"{settings.occurs_below} times, such as {paragraphs[0].text[:60]!r}. Look at the texts, or raise "
            "occurs_below."
        )
    return found


class MaskMonitor(RewardMonitor):
    """Measures how often greedy predictions of held-out masks are right; stops a stage where they get worse."""

    def __init__(
        self, context: StageContext, asking: Asking, rows: Sequence[Mapping[str, Any]], tokenizer: Any,
        settings: RlPretrainSettings,
    ) -> None:  # fmt: skip
        def right(answer: Answer) -> float:
            return asking.reward(answer.text, str(answer.row["span"]))

        mix = Mix(
            (Criterion(RIGHT, 1.0, lambda answers: [right(answer) for answer in answers]),), "weighted", {RIGHT: right}
        )
        watch = WatchSettings(check=RIGHT, **settings.watch.model_dump())
        super().__init__(context, watch, rows, tokenizer, settings.answer_tokens, mix)
        self._asking = asking

    def answers(self, model: Any) -> list[Answer]:
        """Return the likeliest prediction of each held-out mask."""
        prompts = [self._asking.for_prediction(row["paragraph"], row["span"]) for row in self.rows]
        found = []
        for start in range(0, len(prompts), GREEDY):
            some = prompts[start : start + GREEDY]
            found += generate(model, self.tokenizer, some, self.answer_tokens, {"do_sample": False})
        return [
            Answer(wrote.text, row, wrote.stopped, wrote.num_tokens)
            for wrote, row in zip(found, self.rows, strict=True)
        ]


def _train(
    context: StageContext, model: Any, tokenizer: Any, paragraphs: Sequence[Paragraph], asking: Asking,
    monitor: RewardMonitor,
) -> TrainResult:  # fmt: skip
    """Run GRPO on the two kinds of answers."""
    from datasets import Dataset
    from trl import GRPOConfig

    settings, config = cast(RlPretrainSettings, context.settings), context.config
    loop = TrainingLoop(context, settings.answers)
    options = rewarded_options(settings, config, loop.folder, num_prompts=len(paragraphs), stage=context.stage)
    guard = guard_of(context.corpus, "cpt", context.benchmarks)
    masking = Masking(
        asking, paragraphs, settings, stop_ids(model, tokenizer), tokenizer, guard,
        context.work / OVERLAPS.format(ranks.rank()), config.seed,
    )  # fmt: skip
    learner = learner_of(context, model)
    steps = rewarded_steps(settings, len(paragraphs))
    places = in_order(range(len(paragraphs)), steps, settings.paragraphs_per_step, config.seed)
    rows = [
        {"prompt": NOTHING, "paragraph": place, "number": number}
        for number, place in enumerate(places)
        for _ in range(1 + settings.samples)
    ]
    with scoring(config.run, settings.train):
        trainer = build_trainer(
            context, mask_trainer(), GRPOConfig, options, learner, Dataset.from_list(rows), tokenizer,
            reward_funcs=masking,
        )  # fmt: skip
    trainer.add_callback(skipper(masking))
    trainer.add_callback(monitor.callback(trainer))
    log = loop.run(trainer, unit="answers")
    tokens = round(total(log, "tokens"))
    trained = monitor.best(trained_model(context, trainer))
    return TrainResult(trained, log, loop.steps, loop.seconds, tokens, loop.measured())


def total(log: Sequence[Mapping[str, Any]], name: str) -> float:
    """Return one of the counts of `Masking`, over all steps."""
    return sum(float(record[COUNT.format(name)]) for record in log)


def num_read(available: int, steps: int, settings: RlPretrainSettings) -> int:
    """Return how many paragraphs the steps read that were made, fewer than planned after an early stop."""
    return min(available, steps * settings.paragraphs_per_step)


def course_of(log: Sequence[Mapping[str, Any]], settings: RlPretrainSettings) -> dict[str, Any]:
    """Return what a training was like: means over what all steps wrote, or each tenth of them, and random steps."""
    size = -(-len(log) // COURSE) or 1
    parts = [log[start : start + size] for start in range(0, len(log), size)]

    def means(part: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        counts = {name: total(part, name) for name in COUNTED}
        return {name: round(value, 4) for name, value in shares(counts).items()}

    return {
        **(means(log) if log else {}), "random_steps": min(settings.random_steps, len(log)),
        "course": [{"step": part[-1]["step"], **means(part)} for part in parts],
    }  # fmt: skip


KIND = Kind(
    name="rl_pretrain", settings=RlPretrainSettings, run=run, check=check, roles=("cpt",), shareable=True, online=True,
    # No KL and the rate are of the paper; the upper clip is DAPO's (arXiv 2503.14476).
    defaults={"beta": 0.0, "learning_rate": 5.0e-7, "epsilon_high": 0.28},
    phrase="RL pre-training on masks of the domain's text (PretrainZero)", part="text",
)  # fmt: skip
