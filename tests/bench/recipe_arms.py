"""Arms of `just bench methods` that are no methods of the registry: stages, mixtures and orders of rows.

Usage: `RECIPE_ARMS["expand"].on.words`; `tests.bench.method_arms.ARMS` holds them too.

It measures nothing itself.
"""

from __future__ import annotations

from tests.bench.arm import (
    ALONE,
    BASE,
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

GROWN = {"pipeline": "growth", "expand.method": "adept", "expand.added": "2"}  # its layers of cpt-added alone learn
WHOLE = {**REHEARSED, "pipeline": "growth", "cpt-added.train_only": "null"}  # all weights of the grown model learn
COPIES = {**ALONE, "pipeline": "control-llm", "sft-copies.precision": "float32", "sft-copies.tokens": "40960"}
LIKELY = {**REHEARSED, "data-cpt.blocks": f"[{{perplexity: {{checkpoint: {BASE}, keep_all: true}}}}]"}
MASKS = {
    **REHEARSED, "pipeline": "rl-pretrain", "cpt.tokens": "20480", "rl_pretrain.precision": "float32",
    "rl_pretrain.steps": "20", "rl_pretrain.random_steps": "20",
}  # fmt: skip
FEW_FIT = {"rl_pretrain.limits.dropped": "0.95"}  # most answers are longer than the tiny profile's prompts
LARGER = "its step is one of a larger model"
AQUILA = "arXiv 2408.06567 (numbers by a secondary account)"

RECIPE_ARMS: dict[str, Arm] = {
    "expand": Arm(
        Setting({**ALONE, "pipeline": "growth"}, "cpt-added"), FORGETFUL,
        Claim(
            "Training copies of layers that begin by adding nothing, and them alone, keeps the old better than "
            "training all weights: GSM8K 60.03, with all weights 51.86 (1.7B parameters, other text).",
            "arXiv 2401.02415; numbers of arXiv 2510.10071 (by a secondary account)", {"general": FALLS},
        ),
        ours="4 layers and 2 copies", timed_by="growth", phrase="layers are added, and learn alone (LLaMA Pro)",
        paper="arXiv 2401.02415",
        elsewhere={CHECKPOINT: (Setting({**ALONE, "pipeline": "growth", "expand.added": "5"}, "cpt-added"), FORGETFUL)},
        texts=EVERYWHERE,
    ),
    "adept": Arm(
        Setting({**REHEARSED, **GROWN}, "cpt-added"),
        Setting({**REHEARSED, **GROWN, "expand.method": "llama_pro"}, "cpt-added"),
        Claim(
            "Copies of the layers that general text needs least do better on the domain's tests than evenly spread "
            "ones: MMCU medicine 70.98, evenly 66.51 (1.7B parameters).",
            "arXiv 2510.10071 (numbers by a secondary account)", {"domain": FALLS},
        ),
        ours="4 layers and 2 copies, one rate for both", timed_by="growth",
        phrase="copies of the layers that matter least, instead of evenly spread ones",
        paper="arXiv 2510.10071, stage 1",
    ),
    "depth": Arm(
        Setting({**WHOLE, "expand.method": "depth", "expand.num_hidden_layers": "6"}, "cpt-added"), PLAIN,
        Claim(
            "A larger model that starts from a smaller one learns more of the same tokens, and in a fourth of the time "
            "that it takes from random weights.", AQUILA, {"domain": FALLS},
        ),
        ours="4 layers become 6; its counterpart is the model that does not grow", untimed=LARGER,
        phrase="layers stretched over a deeper model, all of which learns", paper="arXiv 2408.06567",
    ),
    "width": Arm(
        Setting({**WHOLE, "expand.method": "width", "expand.intermediate_size": "512"}, "cpt-added"), PLAIN,
        Claim("As for `depth`.", AQUILA, {"domain": FALLS}),
        ours="feed-forward layers of 384 neurons become ones of 512, with equal logits; its counterpart does not grow",
        untimed=LARGER, phrase="more neurons in each layer, all of which learn", paper="arXiv 2110.07143",
    ),
    "upcycle": Arm(
        Setting({**WHOLE, "expand.method": "upcycle", "expand.num_experts": "4"}, "cpt-added"), PLAIN,
        Claim(
            "Experts that start from a dense model's layers do better than the dense model that goes on.",
            "arXiv 2212.05055, abstract", {"domain": FALLS},
        ),
        ours="4 experts, of which 2 see a token", untimed=LARGER,
        phrase="equal experts in the place of each feed-forward layer", paper="arXiv 2212.05055",
    ),
    "collapse": Arm(
        Setting(COPIES, "collapse"), Setting(COPIES, "sft-copies"),
        Claim("Layers and their copies merge into one model. No change of loss was at hand.", "the authors' code", {}),
        elsewhere={"real": (
            Setting({**COPIES, **wide("sft-copies")}, "collapse"),
            Setting({**COPIES, **wide("sft-copies")}, "sft-copies"),
        )},
        ours="its counterpart is the model before it, with its copies; 4 layers, 2 copies, dlerp, after CPT and SFT",
        untimed="it trains nothing", phrase="one plain layer of each layer and its copy (Control LLM)",
        paper="arXiv 2501.10979 and its authors' code",
    ),
    "vocabulary": Arm(
        Setting({**REHEARSED, "pipeline": "vocabulary", "vocabulary.add": "500", "vocabulary.min_frequency": "10"}),
        PLAIN,
        Claim(
            "With tokens for the new text it takes fewer of them, and the model is on a par with plain CPT.",
            "arXiv 2308.11878, abstract", {},
        ),
        ours="up to 500 tokens beside 2,048; the same number of tokens is more text then", untimed=LARGER,
        phrase="tokens for the words of the domain, and CPT of all weights", paper="arXiv 2308.11878",
    ),
    "rl_pretrain": Arm(
        Setting(MASKS, "rl_pretrain"), PLAIN,
        Claim(
            "RL on masks of plain text raises what a model can do (benchmarks together 32.36 to 39.61), where CPT on "
            "the same text takes from it (to 15.89).",
            "arXiv 2512.03442, 4B parameters (numbers by a secondary account)",
            {"general": FALLS},
        ),
        elsewhere={"real": (Setting({**MASKS, **FEW_FIT}, "rl_pretrain"), PLAIN)},
        ours="half of the tokens by CPT, then 160 paragraphs by RL on random spans, as in the tiny profile",
        untimed="a step of it writes 512 answers", paper="arXiv 2512.03442",
        phrase="RL on masks of plain text instead of half of CPT (PretrainZero)",
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
        ours="its time is that of other documents, which are longer or shorter", limit=1.02,
        phrase="a share of the tokens is text that the base has read", paper="arXiv 2403.08763", texts=EVERYWHERE,
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
    "phases": Arm(
        Setting({
            "cpt.replay": "0.725", "cpt.mixture": "{phases: [{until: 0.5, replay: 0.95}, {until: 1, replay: 0.5}]}",
        }),
        Setting({"cpt.replay": "0.725"}),
        Claim(
            "19 parts of general text to one of medicine, then one to one, to bridge what sets them apart. No change "
            "of loss was at hand.", "arXiv 2412.15236 (a secondary account)", {},
        ),
        ours="both phases are equally long, which the paper leaves open; as much replay in all as without phases",
        limit=1.02, phrase="a share of replay that falls from phase to phase (CareBot)", paper="arXiv 2412.15236",
    ),
    "perplexity_order": Arm(
        Setting({**LIKELY, "cpt.mixture": "{curriculum: {by: perplexity}}"}), Setting(LIKELY),
        Claim(
            "Text sorted by the model's own perplexity, from low to high, beats high to low and random order.",
            "arXiv 2407.18743 (a secondary account)", {"domain": FALLS},
        ),
        ours="perplexity of the base, which scores all rows before the first step", texts=("real",),
        untimed="its step is that of `curriculum`",
        phrase="rows from the likeliest to the least likely under the base (SynE)", paper="arXiv 2407.18743",
    ),
    "likeliest_subset": Arm(
        Setting({**LIKELY, "cpt.methods": "{subset: {by: perplexity}}"}), Setting(LIKELY),
        Claim(
            "The likeliest tenth of the domain's tokens for several epochs does better on its tests than all of them "
            "once: 38.5 with 10% replay, without the subset 37.5 (3B parameters, medicine).",
            "arXiv 2406.14833, strategies I and II (numbers by a secondary account)", {"domain": FALLS},
        ),
        ours="a fifth of the rows, by the base's perplexity where the paper has an n-gram model of medical text",
        untimed="its step is that of `subset`", texts=("real",), variant_of="subset",
        phrase="the likeliest rows for several epochs, instead of all of them once",
        paper="arXiv 2406.14833, strategy II",
    ),
}  # fmt: skip
