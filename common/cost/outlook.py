"""What every stage of a run is expected to need: the stages' settings put into the formulas.

Usage: `outlook = Outlook.of(resolved)`; `outlook.phases("cpt")["train"]`, `outlook.seconds("cpt", tokens)`.

Where nothing is known of a model's shapes there are no figures (`outlook.unknown`), and nothing is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from common.config.answering import (
    DrawingSettings,
    ExpertSettings,
    LabelSettings,
    OnlineSettings,
    RewardedSettings,
    SampleSettings,
    SamplingSettings,
)
from common.config.base import StageSettings
from common.config.batches import pair_epochs, rewarded_steps
from common.config.growth import CollapseSettings, ExpandSettings
from common.config.kinds import kind_of
from common.config.long_context import MOST_WINDOWS, PIECE
from common.config.methods import OptimizerMethod, chosen, keeps, teaches
from common.config.node import Node
from common.config.resolve import Resolved
from common.config.rl_pretrain import RlPretrainSettings
from common.config.schema import Config
from common.config.stages import (
    EvaluateSettings,
    LearningSettings,
    MergeSettings,
    PreferenceSettings,
    RewardSettings,
    TrainingSettings,
    WithMethods,
)
from common.config.vocabulary import TokenizerSettings
from common.cost import disk, memory, speed
from common.cost.budget import budget_of
from common.cost.corrections import Corrections, Pace
from common.cost.exam import exam_work, label_work
from common.cost.frozen import decided
from common.cost.hardware import GIB, Hardware, hardware_of
from common.cost.memory import EMBEDDED_TEXT, TEXT_WINDOW, Need, Setting
from common.cost.shapes import Shape, shape_after, shape_in, shape_of
from common.cost.workload import work_of
from common.data.sizes import RowSizes
from common.models.growth.record import growth_of
from common.models.local import means_gguf
from common.models.planned import added_before

if TYPE_CHECKING:
    from common.stage import StageContext

RESHAPING = (ExpandSettings, CollapseSettings, TokenizerSettings)
WIDTHS = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}


def setting_of(
    kind: str, settings: StageSettings, config: Config, shape: Shape, hardware: Hardware, inputs: Sequence[str] = (),
    sizes: RowSizes | None = None, added: Sequence[int] = (),
) -> Setting | None:  # fmt: skip
    """Return a stage as the formulas want it, or None for one that needs next to nothing (card, publish).

    `inputs` are the kinds of what it reads: reward models among them are held while it trains. `sizes` are those of its
    corpus, by which an exam is priced. `added` are the places of layers that a stage before has added.
    """
    facts: dict[str, Any] = {"stored": WIDTHS[config.model.dtype]}
    if isinstance(settings, EvaluateSettings):
        length = min(EMBEDDED_TEXT if config.data == "embedded" else TEXT_WINDOW, shape.context)
        facts |= {"exam_rows": settings.batch_size, "exam_length": length, "answer": settings.answer_tokens}
        facts["exam"] = work = exam_work(settings, sizes, embedded=config.data == "embedded")
        if (far := settings.long_context) is not None:
            read = min(work.texts, 2 * MOST_WINDOWS * far.length)
            facts |= {"far": far.length, "far_tokens": far.needle_tokens + read}
            facts["far_passes"] = far.num_needles * (1 + far.choices) + read / min(far.length, PIECE)
    elif isinstance(settings, LabelSettings):
        facts |= {"exam_rows": settings.batch_size, "exam_length": min(settings.prompt_tokens, shape.context)}
        facts["exam"] = label_work(settings, sizes)
    elif isinstance(settings, MergeSettings):
        facts |= {"members": len(settings.members()), "stored": WIDTHS[settings.dtype]}
    elif not isinstance(settings, (LearningSettings, DrawingSettings, *RESHAPING)):
        return None
    elif _is_taken(kind, settings, config):
        facts["unpacked"] = kind_of(kind).starts and means_gguf(config.model.path)
    else:
        if isinstance(settings, ExpandSettings) and settings.measuring:
            facts["probed"] = settings.probe_tokens * (
                shape.layers - (settings.added or 0) + 1
            )  # whole, and without each
        if isinstance(settings, LearningSettings):
            facts |= {"work": work_of(kind, settings, config, added), "reference": _keeps_reference(kind, settings)}
        if isinstance(settings, TrainingSettings):
            facts |= {"best": settings.validation.keep == "best", "teacher": teaches(settings)}
            facts["keeps"] = keeps(settings)
            facts["probed_a_step"] = sum(
                method.probe_tokens(own) / method.probe_every(own)
                for method, own in chosen(settings)
                if isinstance(method, OptimizerMethod)
            )
            facts["beside"] = sum(method.bytes_per_weight(own) for method, own in chosen(settings))
        if isinstance(settings, DrawingSettings):
            facts |= {"prompt": settings.prompt_tokens, "answer": settings.answer_tokens}
            facts["sequences"] = _sequences(settings, config)
            facts["judges"] = sum(kind_of(other).makes == "reward model" for other in inputs)
    return decided(Setting(kind, shape, config.run, hardware.device, **facts), hardware)


def _is_taken(kind: str, settings: StageSettings, config: Config) -> bool:
    """Whether a stage takes a finished model and trains none."""
    if isinstance(settings, RewardSettings):
        return settings.path is not None
    return kind_of(kind).starts and config.model.path is not None


def _keeps_reference(kind: str, settings: LearningSettings) -> bool:
    """Whether a second whole model is on the device.

    With a quantised learner it is the stage before, unquantised, which DPO, KTO and ORPO read before they train. GRPO
    and RLOO keep one for the KL term, but for an adapter, whose base is the reference.
    """
    if isinstance(settings, PreferenceSettings):
        return settings.peft == "qlora" and kind_of(kind).makes == "language model"
    if isinstance(settings, OnlineSettings):
        pulls = float(settings.train.get("beta", kind_of(kind).defaults.get("beta", 0.0))) != 0
        return settings.peft == "qlora" or (settings.peft == "full" and pulls)
    return False


def _sequences(settings: DrawingSettings, config: Config) -> int:
    """Return the answers that are written at once in a process."""
    bounds = []
    if isinstance(settings, OnlineSettings):
        bounds.append(max(1, settings.answers // config.run.processes))
    if isinstance(settings, SamplingSettings | RlPretrainSettings):
        each = settings.samples * (settings.prompt_tokens + settings.answer_tokens)
        bounds.append(settings.samples * max(1, settings.generated_tokens // each))
    return min(bounds)


@dataclass(frozen=True)
class Outlook:
    """The expectations of one run."""

    resolved: Resolved
    hardware: Hardware
    shape: Shape | None
    settings: Mapping[str, Setting]  # of the stages that have figures
    corrections: Corrections
    sizes: RowSizes | None = None  # of the run's rows

    @property
    def config(self) -> Config:
        return self.resolved.config

    @property
    def unknown(self) -> bool:
        """Whether nothing is known of the model."""
        return self.shape is None

    @classmethod
    def of(cls, resolved: Resolved, corrections: Corrections | None = None, sizes: RowSizes | None = None) -> Outlook:
        """Return what is expected of a run; without the sizes of its rows, exams are priced by a guess.

        Raises ConfigError for hardware that is not in the table.
        """
        config = resolved.config
        hardware, base = hardware_of(config), shape_of(config.model)
        kinds = {node.name: node.kind for node in resolved.nodes}
        found: dict[str, Setting] = {}
        for node in resolved.nodes if base is not None else ():
            undone = isinstance(config.stages[node.name], CollapseSettings)  # holds the larger model before it too
            shape = shape_after(resolved, str(node.parent) if undone else node.name)
            if shape is None:
                continue
            inputs, added = [kinds[name] for name in node.inputs], added_before(resolved, node.name)
            setting = setting_of(node.kind, config.stages[node.name], config, shape, hardware, inputs, sizes, added)
            if setting is not None:
                found[node.name] = _with_rows(setting, node, config.stages[node.name], sizes)
        return cls(resolved, hardware, base, found, corrections or Corrections(resolved.out), sizes)

    def phases(self, stage: str) -> Mapping[str, Need]:
        """Return the needs of a stage by phase; none where nothing is known."""
        return memory.phases_of(self.settings[stage]) if stage in self.settings else {}

    def libraries(self, stage: str) -> tuple[str, float]:
        """Return which libraries a stage needs, and the seconds of loading them: once in a process."""
        setting = self.settings.get(stage)
        name = "" if setting is None else "exam" if setting.exam_rows else "" if setting.members else "train"
        return name, speed.LIBRARIES.get(name, 0.0)

    def seconds(self, stage: str, tokens: int | None) -> float | None:
        """Return how long a stage takes; None where its tokens, its prompts or its model are not known.

        Its libraries are taken to be loaded.
        """
        setting, settings = self.settings.get(stage), self.config.stages[stage]
        if setting is None:
            return None
        spent = speed.other_seconds(setting, self.hardware)
        if isinstance(settings, SampleSettings | ExpertSettings):
            there = self.sizes.of("prompts") if self.sizes and settings.prompts is None else None
            prompts = there.rows if there is not None else settings.prompts
            if prompts is None:
                return None
            rounds = settings.rounds if isinstance(settings, ExpertSettings) else 1
            batches = rounds * prompts * settings.samples / setting.sequences
            spent += batches * speed.writing_seconds(setting, self.hardware)
        if setting.work is None:
            return spent
        share = self.corrections.share(pace_of(setting, self.hardware)) or 1.0
        if isinstance(settings, RewardedSettings | RlPretrainSettings):
            role = kind_of(setting.kind).roles[0]
            there = self.sizes.of(role) if self.sizes and settings.epochs is not None else None
            if settings.epochs is not None and there is None:
                return None
            steps = rewarded_steps(settings, max(0, there.rows - settings.watch.prompts) if there else 0)
            return spent + steps * speed.step_seconds(setting, self.hardware) / share
        if isinstance(settings, PreferenceSettings) and tokens:
            spent += self._pair_seconds(setting, settings, tokens)
        return None if tokens is None else spent + tokens * speed.token_seconds(setting, self.hardware) / share

    def _pair_seconds(self, setting: Setting, settings: PreferenceSettings, tokens: int) -> float:
        """Return the seconds around training on some passes over pairs; none where the pairs are not known."""
        found, heldout = (self.sizes.of(role) if self.sizes else None for role in ("preference", "preference_heldout"))
        if found is None or not found.rows:
            return 0.0
        each = tokens / pair_epochs(settings, found.rows) / found.rows
        return speed.pair_seconds(setting, self.hardware, found.rows, heldout.rows if heldout else 0, each)

    def disk(self, stage: str) -> tuple[float, float]:
        """Return the bytes that a stage leaves, and those that it needs while it works."""
        setting = self.settings.get(stage)
        return (0.0, 0.0) if setting is None else (disk.kept_bytes(setting), disk.scratch_bytes(setting))

    def added(self, stage: str, method: str) -> tuple[float, float] | None:
        """Return what a method adds to a stage: bytes where it computes, and a share of its time; None: not known."""
        setting, settings = self.settings.get(stage), self.config.stages[stage]
        if setting is None or setting.work is None or self.shape is None:
            return None
        assert isinstance(settings, WithMethods)
        left = settings.model_copy(update={"methods": {k: v for k, v in settings.methods.items() if k != method}})
        layers = setting.work.only or ()
        without = setting_of(setting.kind, left, self.config, setting.shape, self.hardware, (), self.sizes, layers)
        assert without is not None, "the same stage"
        if without.work is not None:  # and with the same layers checkpointed
            without = replace(without, work=replace(without.work, keeps_frozen=setting.work.keeps_frozen))
        sizes = [memory.phases_of(each)["train"].device_total for each in (setting, without)]
        seconds = [speed.step_seconds(each, self.hardware) for each in (setting, without)]
        return sizes[0] - sizes[1], seconds[0] / seconds[1] - 1

    def price(self, seconds: float) -> float | None:
        """Return what GPUs cost for some time, all processes' counted; None without a price or a GPU."""
        run = self.config.run
        if run.gpu_hour_price is None or self.hardware.device != "cuda":
            return None
        return run.gpu_hour_price * run.processes * seconds / 3600


def _with_rows(setting: Setting, node: Node, settings: StageSettings, sizes: RowSizes | None) -> Setting:
    """Return a stage whose teacher reads all rows first with the positions of one pass over them, where known.

    A budget in tokens is taken for one pass, so they are at most as many.
    """
    if not setting.keeps or not isinstance(settings, TrainingSettings):
        return setting
    tokens = settings.tokens or (budget_of(node, settings, sizes).tokens if sizes is not None else None)
    return replace(setting, kept_tokens=(tokens or 0) / max(1.0, settings.epochs or 1.0))


def pace_of(setting: Setting, hardware: Hardware) -> Pace:
    """Return what the speed of a stage that trains belongs to."""
    assert setting.work is not None, f"a stage of kind {setting.kind} has no speed"
    work, parameters = setting.work, setting.shape.parameters
    part = work.peft if work.only is None else "added" if work.only else "embeddings"
    return Pace(setting.kind, part, work.precision, parameters, hardware.name, setting.run.processes)


def setting_in(context: StageContext) -> tuple[Setting, Hardware] | None:
    """Return the stage that runs as the formulas want it, and where; None where nothing is known of its model."""
    before = context.parent_artifact.path if context.parent is not None else None
    growth = growth_of(before) if before is not None else None
    # Stages on the way may have changed the base's shape: more layers, or rows of new tokens.
    shape = (shape_in(before) if before is not None else None) or shape_of(context.config.model)
    if shape is None:
        return None
    hardware = hardware_of(context.config)
    inputs = [str(artifact.manifest["kind"]) for artifact in context.inputs.values()]
    added = growth.added if growth is not None else ()
    setting = setting_of(context.kind, context.settings, context.config, shape, hardware, inputs, None, added)
    return None if setting is None else (setting, hardware)


def expected(context: StageContext, phase: str) -> str:
    """Return how much memory a phase was expected to need where it computes, or an empty text."""
    found = setting_in(context)
    need = memory.phases_of(found[0]).get(phase) if found is not None else None
    if found is None or need is None:
        return ""
    on_gpu = found[0].device == "cuda" and phase not in ("save", "merge")
    size = need.device_total if on_gpu else need.host_total + (need.device_total if found[0].device == "cpu" else 0)
    unsure = " at most" if need.at_most else ""
    return f"{size / GIB:.1f} GiB were expected{unsure}"
