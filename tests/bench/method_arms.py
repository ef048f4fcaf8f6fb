"""What `just bench methods` trains: for each method its settings, its plain counterpart's, and what its paper claims.

Usage: `ARMS["reptile"].on.words`; a method of the registry without an arm here fails a test.

Arms of stages, mixtures and pipelines are those of `tests.bench.recipe_arms`. It measures nothing itself.
"""

from __future__ import annotations

from tests.bench.arm import (
    ALONE,
    CHECKPOINT,
    EVERYWHERE,
    FALLS,
    FORGETFUL,
    IBRAHIM,
    PLAIN,
    REHEARSED,
    RISES,
    Arm,
    Claim,
    Setting,
    wide,
)  # fmt: skip
from tests.bench.recipe_arms import GROWN, RECIPE_ARMS

LONG_ROWS = {"cpt.sequence_length": "512", "cpt.batch_tokens": "1024"}
SPARSE = {**REHEARSED, "pipeline": "sparse", "sparse.distillation": "0"}
CUT = {"sparse.zeros": "cut", "sparse.methods.adams": "false"}  # trained as ever, and cut by magnitude at the end
TUNED = {**REHEARSED, "pipeline": "sparse"}
ABSTRACTS = {
    **REHEARSED,
    "pipeline": "cpt-sft",
    "sft.precision": "float32",
    **wide("sft"),
}

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
    return Arm(on, FORGETFUL, claim, ours=SCORED, texts=(), scored=True)


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
        elsewhere={CHECKPOINT: (
            Setting({**ALONE, "cpt.methods": "{rewarm: {peak: 1.0e-4}}"}),
            Setting({**ALONE, "cpt.schedule": "{kind: constant, warmup: 0}", "cpt.train.learning_rate": "1.0e-5"}),
        )},
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
        paper="ours", variant_of="self_distillation",
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
        Setting({**TUNED, "sft-sparse.precision": "float32"}, "sft-sparse"),
        Setting({**TUNED, "sft.precision": "float32"}, "sft"),
        elsewhere={"real": (
            Setting({**TUNED, "sft-sparse.precision": "float32", **wide("sft-sparse")}, "sft-sparse"),
            Setting({**TUNED, "sft.precision": "float32", **wide("sft")}, "sft"),
        )},
        claim=Claim("It is ours, and keeps zeros where they are; it promises no gain.", "ours", {}),
        ours="its counterpart is dense; so the effect is what sparsity costs once both are fine-tuned, and what "
        "another 40,960 tokens of the domain's text give, which the stage that prunes reads",
    ),
    "control_divergence": Arm(
        Setting({**ALONE, "pipeline": "control-llm"}, "cpt-copies"), FORGETFUL,
        Claim(
            "Copies beside frozen layers keep the old: MMLU falls by less than 4.3%, and by more than 35% where all "
            "weights learn (8B parameters, other text).", "arXiv 2501.10979, abstract", {"general": FALLS},
        ),
        timed_as=(
            Setting({**ALONE, "pipeline": "control-llm"}, "cpt-copies"),
            Setting({
                **ALONE, "pipeline": "control-llm", "cpt-copies.methods": "{control_divergence: {scale: 0}}",
            }, "cpt-copies"),
        ),
        ours="4 layers and 2 copies with dlerp, not yet collapsed; the whole of Control LLM, not its loss alone. The "
        "time is that of the loss alone, against the same copies without it",
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
    **RECIPE_ARMS,
}  # fmt: skip
