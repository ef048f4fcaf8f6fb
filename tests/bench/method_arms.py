"""What `just bench methods` trains: for each method its settings, its plain counterpart's, and what its paper claims.

Usage: `ARMS["reptile"].on.words`; a method of the registry without an arm here fails a test.

Claims are in our words, with their source, and with the paper's own change of loss where it gives one: as a share of
the loss, since losses per token of other tokenizers do not compare. It measures nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Side = Literal["domain", "general"]
SIDES: tuple[Side, Side] = ("domain", "general")
FALLS, RISES = True, False  # bits per byte; the lower the better
CHECKPOINT = "smollm2"  # of the texts: medicine again, on SmolLM2-135M-Instruct
EVERYWHERE = ("embedded", "real", CHECKPOINT)


@dataclass(frozen=True)
class Setting:
    """Overrides of a chain, and the stage whose exam counts."""

    words: Mapping[str, str]
    stage: str = "cpt"


@dataclass(frozen=True)
class Claim:
    """What a paper says of its method against the plain counterpart."""

    text: str
    source: str
    expects: Mapping[Side, bool]  # what bits per byte of a side do; a side without a claim is only measured
    shares: Mapping[Side, float] = field(default_factory=dict)  # the change of the paper's loss, as a share of it


@dataclass(frozen=True)
class Arm:
    """A method against its plain counterpart."""

    on: Setting
    plain: Setting
    claim: Claim
    ours: str = ""  # what of the setting is scaled to this budget, and not the paper's
    limit: float | None = None  # most CPU time of a step, relative to the plain one
    phrase: str = ""  # with `paper`, of an arm that is no method of the registry
    paper: str = ""
    texts: tuple[str, ...] = ("embedded", "real")  # none: what its paper claims is not a matter of bits per byte
    timed_by: str = ""  # another bench that measures its step
    untimed: str = ""  # why the time of a step is not set against the plain one
    variant_of: str = ""  # the method of the registry that this is a form of
    checkpoint: tuple[Setting, Setting] | None = None  # on and plain for a published checkpoint, where these differ

    def settings(self, text: str) -> tuple[Setting, Setting]:
        """Return what is trained with the method and without, for one of the texts."""
        return self.checkpoint if self.checkpoint is not None and text == CHECKPOINT else (self.on, self.plain)


REHEARSED = {"cpt.replay": "0.25"}
ALONE = {"cpt.replay": "0"}  # nothing of the general text is read again
GROWN = {"pipeline": "growth", "expand.method": "adept", "expand.added": "2"}  # its layers of cpt-added alone learn
LONG_ROWS = {"cpt.sequence_length": "512", "cpt.batch_tokens": "1024"}
SPARSE = {**REHEARSED, "pipeline": "sparse", "sparse.distillation": "0"}
CUT = {"sparse.zeros": "cut", "sparse.methods.adams": "false"}  # trained as ever, and cut by magnitude at the end
ABSTRACTS = {
    **REHEARSED, "pipeline": "cpt-sft", "sft.precision": "float32", "sft.tokens": "40960",
    "sft.sequence_length": "1024", "sft.batch_tokens": "2048",
}  # fmt: skip
PLAIN, FORGETFUL = Setting(REHEARSED), Setting(ALONE)
IBRAHIM = "arXiv 2403.08763, 405M parameters, English to German (numbers by a secondary account)"

SCORED = (
    "measured by `just bench undesired`, see [where rows have scores](#where-rows-have-scores); values are those of "
    "the paper's code for personal data, where scores are per character of a sentence"
)
KORBAK = "arXiv 2302.08582, abstract"
UNGUARDED = {"cpt.guard.spike": "null"}  # their loss jumps with the documents of a batch
COMPARED = "Compared with conditional training, which is found to be better."


def scored(name: str, own: str, text: str, **more: str) -> Arm:
    """Return the arm of a method that goes by scores of rows, which `just bench undesired` gives them."""
    claim = Claim(text, KORBAK, {})
    on = Setting({**ALONE, "cpt.methods": f"{{{name}: {{by: mails, {own}}}}}", **more})
    return Arm(on, FORGETFUL, claim, ours=SCORED, texts=(), untimed="it needs rows with scores")


ARMS: dict[str, Arm] = {
    "infinite": Arm(
        Setting({**REHEARSED, "cpt.methods": "{infinite: {}}"}), PLAIN,
        Claim(
            "In continued pre-training it beats a cosine that is repeated: zero-shot benchmarks of language models are "
            "higher. No change of loss was at hand.", "arXiv 2503.02844, abstract", {"general": FALLS},
        ),
        ours="lengths and rates are the method's defaults", limit=1.02,
    ),
    "rewarm": Arm(
        Setting({**ALONE, "cpt.methods": "{rewarm: {}}"}),
        Setting({
            **ALONE, "cpt.schedule": "{kind: constant, warmup: 0}", "cpt.train.learning_rate": "2.5e-4",
        }),
        Claim(
            "Against going on at the lowest rate, re-warming to the peak before learns the new text better (loss 1.11, "
            "was 1.21) and forgets more of the old (3.56, was 3.22).", IBRAHIM, {"domain": FALLS, "general": RISES},
            {"domain": 1.11 / 1.21 - 1, "general": 3.56 / 3.22 - 1},
        ),
        ours="the lowest rate is a tenth of the base's peak, as in the paper", limit=1.02,
        checkpoint=(
            Setting({**ALONE, "cpt.methods": "{rewarm: {peak: 1.0e-4}}"}),
            Setting({**ALONE, "cpt.schedule": "{kind: constant, warmup: 0}", "cpt.train.learning_rate": "1.0e-5"}),
        ),
        texts=EVERYWHERE,
    ),
    "reptile": Arm(
        Setting({**REHEARSED, "cpt.methods": "{reptile: {every: 20, step: 0.1}}"}), PLAIN,
        Claim(
            "Beside 25% of replay, interpolation every 500 steps forgets less: downstream average 67.5 where replay "
            "alone has 66.4 (560M parameters).", "arXiv 2508.01908 (numbers by a secondary account)",
            {"general": FALLS},
        ),
        ours="every 20 steps, as the whole stage has fewer than 500; the step is the paper's", limit=1.02,
        texts=EVERYWHERE,
    ),
    "self_distillation": Arm(
        Setting({**ALONE, "cpt.methods": "{self_distillation: {}}"}), FORGETFUL,
        Claim(
            "A pull towards the model before keeps what it knew better than fine-tuning does (image classifiers).",
            "arXiv 1606.09282", {"general": FALLS},
        ),
        ours="a language model and its weight of 0.5", limit=1.5,
        texts=EVERYWHERE,
    ),
    "top_k": Arm(
        Setting({**ALONE, "cpt.methods": "{self_distillation: {top_k: 32}}"}), FORGETFUL,
        Claim("The pull is that of `self_distillation`, or a little weaker.", "ours", {"general": FALLS}),
        ours="all of it; the teacher's one pass over the rows, before the first step, is not in the time of a step",
        phrase="self-distillation from 32 logits of each position, which the stage before leaves before the first step",
        paper="ours", texts=("embedded",), variant_of="self_distillation",
    ),
    "logit_swap": Arm(
        Setting({**ALONE, "cpt.methods": "{logit_swap: {}}"}), FORGETFUL,
        Claim(
            "The constraint is there to avoid forgetting; the whole recipe gains in the domain and in general.",
            "arXiv 2407.10804, abstract", {"general": FALLS},
        ),
        ours="domain text alone; the paper's mixture holds instructions and preferences too",
    ),
    "subset": Arm(
        Setting({**REHEARSED, "cpt.methods": "{subset: {}}"}), PLAIN,
        Claim(
            "A random part of the domain's tokens for five epochs does better on the domain's tests than all of them "
            "once (3B parameters, medicine).", "arXiv 2406.14833, strategy I", {"domain": FALLS},
        ),
        ours="the budget stays, so the part is a fifth of it", limit=1.02,
        texts=EVERYWHERE,
    ),
    "unit_rates": Arm(
        Setting({**REHEARSED, **GROWN, "cpt-added.methods": "{unit_rates: {every: 20}}"}, "cpt-added"),
        Setting({**REHEARSED, **GROWN}, "cpt-added"),
        Claim(
            "In layers that were added, rates by importance do better on the domain's tests than one rate: MMCU "
            "medicine 70.98, without them 66.19 (1.7B parameters).",
            "arXiv 2510.10071 (numbers by a secondary account)", {"domain": FALLS},
        ),
        ours="importance is measured on replay text, every 20 steps, as the whole stage has fewer than 500; before "
        "the first step all of it is 0, as copies add nothing yet, and rates are equal",
        timed_by="growth",
    ),
    "expand": Arm(
        Setting({**ALONE, "pipeline": "growth"}, "cpt-added"), FORGETFUL,
        Claim(
            "Training copies of layers that begin by adding nothing, and them alone, keeps the old better than "
            "training all weights: GSM8K 60.03, with all weights 51.86 (1.7B parameters, other text).",
            "arXiv 2401.02415; numbers of arXiv 2510.10071 (by a secondary account)", {"general": FALLS},
        ),
        ours="4 layers and 2 copies", timed_by="growth", phrase="layers are added, and learn alone (LLaMA Pro)",
        paper="arXiv 2401.02415",
        checkpoint=(Setting({**ALONE, "pipeline": "growth", "expand.added": "5"}, "cpt-added"), FORGETFUL),
        texts=EVERYWHERE,
    ),
    "adams": Arm(
        Setting(SPARSE, "sparse"), Setting({**SPARSE, **CUT}, "sparse"),
        Claim(
            "Weights that decay while it trains cost less than other ways to the 2:4 pattern; perplexity is 0.09 above "
            "that of the dense model (7B parameters, 7.5 billion tokens).", "arXiv 2509.25996, abstract",
            {"domain": FALLS, "general": FALLS},
        ),
        ours="the plain one trains with AdamW and is cut by magnitude; decay and rate of the tiny profile; no teacher",
    ),
    "keep_zeros": Arm(
        Setting({**REHEARSED, "pipeline": "sparse", "sft-sparse.precision": "float32"}, "sft-sparse"),
        Setting({**REHEARSED, "pipeline": "sparse", "sft.precision": "float32"}, "sft"),
        Claim("It is ours, and keeps zeros where they are; it promises no gain.", "ours", {}),
        ours="its counterpart is dense; so the effect is what sparsity costs once both are fine-tuned, and what "
        "another 40,960 tokens of the domain's text give, which the stage that prunes reads",
        texts=("embedded",),
    ),
    "control_divergence": Arm(
        Setting({**ALONE, "pipeline": "control-llm"}, "cpt-copies"), FORGETFUL,
        Claim(
            "Copies beside frozen layers keep the old: MMLU falls by less than 4.3%, and by more than 35% where all "
            "weights learn (8B parameters, other text).", "arXiv 2501.10979, abstract", {"general": FALLS},
        ),
        untimed="its step is one of a larger model",
        ours="4 layers and 2 copies with dlerp, not yet collapsed; the whole of Control LLM, not its loss alone",
    ),
    "layer_updates": Arm(
        Setting({**REHEARSED, "cpt.methods": "{layer_updates: {}}"}), PLAIN,
        Claim("It only measures, so that both effects should be 0.", "arXiv 2406.14833, the diagnostic", {}),
    ),
    "conditional": scored(
        "conditional", "threshold: 0",
        "Control tokens make undesired text up to ten times rarer and keep what the model can do.",
    ),
    "unlikelihood": scored("unlikelihood", "threshold: 0, alpha: 1", COMPARED, **UNGUARDED),
    "reward_weighted": scored("reward_weighted", "beta: 10", COMPARED),
    "advantage_weighted": scored("advantage_weighted", "beta: 0.1, alpha: 0.5", COMPARED, **UNGUARDED),
    "length_curriculum": Arm(
        Setting({**REHEARSED, **LONG_ROWS, "cpt.methods": "{length_curriculum: {parts: 4}}"}),
        Setting({**REHEARSED, **LONG_ROWS}),
        Claim(
            "Long rows after 40% of the training lose almost nothing against long rows from the start, and save 20% of "
            "the FLOPs at 32,768 tokens a row. No change of loss was at hand.", "arXiv 2309.16039, section 4.4", {},
        ),
        ours="rows of 512 tokens, and of 128 before", limit=1.02,
    ),
    "long_prompts": Arm(
        Setting({**ABSTRACTS, "sft.methods": "{long_prompts: {from_tokens: 64}}"}, "sft"),
        Setting(ABSTRACTS, "sft"),
        Claim(
            "Questions on long inputs are answered better: Qasper 35.7 to 38.9, QuALITY 59.3 to 77.3.",
            "arXiv 2309.16039, section 4.3", {},
        ),
        ours="questions on abstracts of some 350 tokens, and bits per byte; how well a tiny model answers says nothing",
        texts=("real",),
    ),
    "residual": Arm(
        Setting({**ALONE, "pipeline": "instruct-residual"}, "residual"), FORGETFUL,
        Claim(
            "A part of what CPT took from an instruct model comes back. The paper adds the step from a base to its "
            "instruct model, and only the instruct model is at hand: this is the residual between it and its own CPT.",
            "arXiv 2410.10739, another residual", {"general": FALLS},
        ),
        ours="half of the way back", phrase="half of the way back from CPT to the instruct model",
        paper="after arXiv 2410.10739", texts=(CHECKPOINT,),
    ),
    "replay": Arm(
        PLAIN, FORGETFUL,
        Claim(
            "25% of replay keeps most of the old (loss 2.33, was 3.56) and costs a little of the new (1.16, was 1.11).",
            IBRAHIM, {"domain": RISES, "general": FALLS}, {"domain": 1.16 / 1.11 - 1, "general": 2.33 / 3.56 - 1},
        ),
        limit=1.02, phrase="a share of the tokens is text that the base has read", paper="arXiv 2403.08763",
        texts=EVERYWHERE,
    ),
    "curriculum": Arm(
        Setting({**REHEARSED, "cpt.mixture": "{curriculum: {by: length}}"}), PLAIN,
        Claim(
            "Text sorted by the model's own perplexity, from low to high, beats high to low and random order.",
            "arXiv 2407.18743 (a secondary account)", {"domain": FALLS},
        ),
        ours="by length, which needs no score", limit=1.02,
        phrase="rows in an order, instead of shuffled", paper="arXiv 2407.18743",
    ),
}  # fmt: skip
