"""The model card: front matter for the Hub, and the chain told from its numbers.

Usage: `(out / "README.md").write_text(render_card(chain, comparisons, about))`.

It renders text; reading artifacts is `common.report.chain`, the tables are `common.report.sections`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.config.kinds import kind_of
from common.report import sections
from common.report.adapters import adapter_section
from common.report.chain import SIDES, Chain
from common.report.comparisons import Comparison
from common.report.exam_details import exam_details
from common.report.headline import headline
from common.report.markdown import duration, number
from common.report.rewards import reward_section
from common.report.sampled import sampling_sentences

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

HUB_ID = re.compile(r"^[\w][\w.-]*/[\w.-]+$")
USAGE = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

path = "."  # this folder, or the name of its repository on the Hub
tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForCausalLM.from_pretrained(path)

messages = [{"role": "user", "content": "Your question here"}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
output = model.generate(**inputs, max_new_tokens=128, do_sample=False)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```"""


@dataclass(frozen=True)
class About:
    """What the card says beyond the artifacts: names, licence, use. Cleaned of local paths."""

    domain: str
    title: str
    profile: str
    pipeline: str
    seed: int
    base_model: str | None  # Hub id of the checkpoint that the chain starts from; None where it was pretrained here
    licence: str
    tags: tuple[str, ...]
    intended_use: str
    limits_of_use: str

    @property
    def model_name(self) -> str:
        return f"{self.domain}-{self.profile}-{self.pipeline}"


def render_card(chain: Chain, comparisons: Sequence[Comparison], about: About) -> str:
    """Return the README.md of the published folder."""
    extra = sections.extra_table(chain)
    preference = [s for s in map(sections.preference_sentence, chain.checkpoints) if s]
    parts = [
        f"# {about.title} model ({about.pipeline} pipeline, {about.profile} profile)",
        _what_it_is(chain, about),
        "## What came out",
        "\n".join(f"- {line}" for line in headline(chain, comparisons)) or "No exam was sat; nothing can be said.",
        *sections.majority_sentences(chain),
        "Scores are shares of right answers in an exam that every checkpoint sat, with 95% Wilson intervals: the "
        "likeliest of the choices where a question has choices, the written answer where it has none. Differences are "
        "paired over the same questions: bootstrap intervals and the exact McNemar test, "
        "adjusted by Holm over all comparisons of this card. A difference is called one when the adjusted p is "
        "below 0.05.",
        "## The chain",
        sections.results_table(chain),
        "Bits per byte are measured on held-out text, lower is better. Tokens are positions of packed rows, padding "
        "included; the table of rows below counts the tokens of the texts themselves. "
        f"The published checkpoint, `{chain.published}`, is in bold.",
        "![Exam scores of every checkpoint](exam.png)",
        "![Training loss of every stage](loss.png)",
        *sections.validation_sentences(chain),
        *sections.guard_sentences(chain),
        *preference,
        *reward_section(chain),
        *sampling_sentences(chain),
        *adapter_section(chain, comparisons),
        *exam_details(chain),
        *(["### Every comparison", sections.comparison_table(comparisons)] if comparisons else []),
        *(["### Further benchmarks", extra] if extra else []),
        *_use(about),
        *_provenance(chain),
    ]
    return front_matter(chain, about) + "\n" + "\n\n".join(parts) + "\n"


def _what_it_is(chain: Chain, about: About) -> str:
    path = list(reversed(chain.ancestors(chain.published)))
    words = [f"{kind_of(c.kind).phrase or c.kind} (`{c.name}`)" for c in path]
    origin = f"[{about.base_model}](https://huggingface.co/{about.base_model})" if about.base_model else ""
    start = f"It starts from {origin}." if origin else "Its base was pretrained in the same run."
    total = sum(float(m.get("seconds") or 0) for m in chain.manifests.values())
    tokens = sum(int(c.manifest.get("tokens") or 0) for c in chain.checkpoints)
    return (
        f"A language model for {about.title}, made by the pipeline `{about.pipeline}` with the profile "
        f"`{about.profile}` and seed {about.seed}. {start} The way to this checkpoint: {', then '.join(words)}. "
        f"The whole run made {len(chain.checkpoints)} checkpoints from {number(tokens)} training tokens in "
        f"{duration(total)}."
    )


def _use(about: About) -> list[str]:
    return [
        "## Intended use",
        about.intended_use or "The domain states no intended use.",
        "## Limits",
        about.limits_of_use,
        "## How to use it",
        USAGE,
    ]


def _provenance(chain: Chain) -> list[str]:
    versions = sections.versions(chain)
    return [
        "## Data and licences",
        sections.data_table(chain),
        "## What became of the rows",
        sections.rows_table(chain),
        "Masked is the share of rows without one token to learn from.",
        "## Recipes",
        sections.recipes(chain),
        "## Lineage",
        "A fingerprint names what a stage was made from (settings, data, code, inputs); a digest names its files.",
        sections.lineage_table(chain),
        "## Cost and environment",
        sections.cost_table(chain),
        sections.hardware(chain),
        *([versions] if versions else []),
    ]


def front_matter(chain: Chain, about: About) -> str:
    """Return the YAML block that the Hub reads, results of the published checkpoint included."""
    from huggingface_hub import ModelCardData

    sources = sections.merged_sources(chain)
    hub_data = dict.fromkeys(s["id"] for s in sources if s.get("revision") and HUB_ID.match(str(s["id"])))
    languages = dict.fromkeys(language for s in sources for language in _languages(s.get("language")))
    kinds = [c.kind for c in chain.ancestors(chain.published) if not kind_of(c.kind).starts]
    results = _eval_results(chain, about)
    data = ModelCardData(
        language=list(languages) or None,
        license=about.licence,
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=about.base_model,
        datasets=list(hub_data) or None,
        tags=list(dict.fromkeys([about.domain, *reversed(kinds), "domain-recipes", *about.tags])),
        model_name=about.model_name if results else None,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _languages(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(item) for item in value] if isinstance(value, list | tuple) else []


def _eval_results(chain: Chain, about: About) -> list[EvalResult]:
    """Return the published checkpoint's scores in the Hub's model-index form."""
    checkpoint = chain[chain.published]
    results = []
    for side in SIDES:
        dataset = (f"{about.domain}-{side}", "General questions" if side == "general" else f"{about.title} questions")
        score, bits = checkpoint.score(side), checkpoint.bits(side)
        if score is not None:
            label = f"accuracy, 95% interval {score['low']:.3f} to {score['high']:.3f}, n = {score['n']}"
            results.append(_eval_result(dataset, "accuracy", score["score"], label))
        if bits is not None:
            results.append(_eval_result(dataset, "bits_per_byte", bits, "bits per byte of held-out text"))
    for task, metrics in (checkpoint.exam.get("extra") or {}).items():
        results += [_eval_result((task, task), metric, float(value), metric) for metric, value in metrics.items()]
    return results


def _eval_result(dataset: tuple[str, str], metric: str, value: float, label: str) -> EvalResult:
    from huggingface_hub import EvalResult

    return EvalResult(
        task_type="text-generation",
        dataset_type=dataset[0],
        dataset_name=dataset[1],
        metric_type=metric,
        metric_value=round(value, 4),
        metric_name=label,
    )
