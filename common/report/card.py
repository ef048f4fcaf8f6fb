"""The model card: front matter for the Hub, and a report on the chain.

Usage: `(out / "README.md").write_text(render_card(chain, comparisons, texts, about))`.

It puts the parts in order: results are read in `common.report.chain`, the tables are `common.report.exam_tables` and
`common.report.tables`, the sentences `common.report.headline` and `common.report.stage_notes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from common.config.kinds import kind_of
from common.evaluation.comparison import Comparison, TextComparison
from common.models.licence import HUB_ID, RollUp
from common.report import exam_tables, stage_notes, tables
from common.report.chain import SIDES, Chain
from common.report.growth_notes import growth_notes
from common.report.headline import headline
from common.report.licences import LOCAL, base_record, licence_facts, trained_on
from common.report.long_context import long_context_notes
from common.report.markdown import code, duration, number, one_line, plain, prose
from common.report.mask_notes import mask_notes
from common.report.method_notes import method_notes
from common.report.sequence import sequence_notes
from common.report.sparsity_notes import sparsity_notes
from common.report.vocabulary_notes import vocabulary_notes

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

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


SCORES_NOTE = (
    "A score is the share of right answers in the exam, with its 95% Wilson interval. All models answer the same "
    "questions. If a question has choices, the choice with the highest likelihood is the answer. If it has none, the "
    "model writes an answer. Differences are paired over the questions, with bootstrap intervals and the exact McNemar "
    "test. P-values are adjusted by Holm's method over all comparisons of this card. A difference is significant when "
    "the adjusted p is below 0.05."
)

TEXTS_NOTE = (
    "Both models read the same documents. Change is the relative change of bits per byte: with -10%, the later model "
    "needs 10% fewer bits for the same text. The 95% intervals are from a paired bootstrap over the documents and are "
    "not adjusted for the number of comparisons. An interval that contains 0 shows no change."
)
LICENCE_NOTE = (
    "The licence follows from a fixed order: public domain, permissive, attribution, share-alike, non-commercial, no "
    "changes or research only, own terms. Exams do not count. This is a careful reading and no legal advice: whether "
    "the licence of a text holds for weights that learned from it is not settled."
)


@dataclass(frozen=True)
class About:
    """What the card says beyond the results of stages: names and use. Without local paths."""

    domain: str
    title: str
    profile: str
    pipeline: str
    seed: int
    tags: tuple[str, ...]
    intended_use: str
    limits_of_use: str

    @property
    def model_name(self) -> str:
        return f"{self.domain}-{self.profile}-{self.pipeline}"


def render_card(
    chain: Chain, comparisons: Sequence[Comparison], texts: Sequence[TextComparison], about: About, licence: RollUp,
    choice: str,
) -> str:  # fmt: skip
    """Return the README.md of the published folder."""
    versions = tables.versions(chain)
    parts = [
        f"# {plain(about.title)} model ({about.pipeline} pipeline, {about.profile} profile)",
        _what_it_is(chain, about),
        "## Results",
        "\n".join(f"- {line}" for line in headline(chain, comparisons, texts)) or "No exam was run: no results.",
        f"**What is published.** {choice}",
        *stage_notes.exam_warnings(chain),
        SCORES_NOTE,
        "## Stages",
        exam_tables.results_table(chain),
        "Bits per byte are measured on held-out text; lower is better. Tokens are positions of packed rows, including "
        f"padding. The table of rows below counts tokens of the texts only. The published model, `{chain.published}`, "
        "is in bold.",
        "![Exam scores of every model](exam.png)",
        "![Training loss of every stage](loss.png)",
        *stage_notes.training_notes(chain),
        *growth_notes(chain, comparisons, texts),
        *vocabulary_notes(chain),
        *sparsity_notes(chain),
        *mask_notes(chain),
        *stage_notes.reward_notes(chain),
        *stage_notes.sampling_notes(chain),
        *stage_notes.label_notes(chain),
        *stage_notes.adapter_notes(chain, comparisons),
        *sequence_notes(chain),
        *exam_tables.exam_details(chain),
        *long_context_notes(chain),
        *(["### All comparisons", exam_tables.comparison_table(comparisons)] if comparisons else []),
        *(["### Comparisons by held-out text", TEXTS_NOTE, exam_tables.text_comparison_table(texts)] if texts else []),
        "## Intended use",
        prose(about.intended_use) or "The domain states no intended use.",
        "## Limits",
        prose(about.limits_of_use),
        "## How to use it",
        USAGE,
        "## Data and licences",
        *licence_text(licence),
        tables.data_table(chain),
        "## Rows",
        tables.rows_table(chain),
        "Masked is the share of rows without a token to train on. Tokens of stages that clean are those of texts as "
        "they stand; ~ marks an estimate from a sample.",
        *(["### Mixture", mixed, *tables.course_tables(chain)] if (mixed := tables.mixture_table(chain)) else []),
        *stage_notes.continued_notes(chain),
        *stage_notes.mixture_notes(chain),
        *method_notes(chain),
        *(["### Cleaning", cleaned] if (cleaned := tables.cleaning_table(chain)) else []),
        "## Recipes",
        tables.recipes(chain),
        "## Lineage",
        "A fingerprint identifies a stage's settings, data and inputs. A digest identifies its files.",
        tables.lineage_table(chain),
        *stage_notes.outside_code_notes(chain),
        "## Cost and environment",
        tables.cost_table(chain),
        tables.hardware(chain),
        *([versions] if versions else []),
    ]
    return front_matter(chain, about, licence) + "\n" + "\n\n".join(parts) + "\n"


def _what_it_is(chain: Chain, about: About) -> str:
    path = list(reversed(chain.ancestors(chain.published)))
    steps = [f"{kind_of(c.kind).phrase or c.kind} (`{c.name}`)" for c in path]
    total = sum(float(m.get("seconds") or 0) for m in chain.manifests.values())
    tokens = sum(int(c.manifest.get("tokens") or 0) for c in chain.checkpoints)
    made = sum(base_record([c.manifest]) is None for c in chain.checkpoints)  # all but a base that was given
    return (
        f"A language model for {plain(about.title)}. It was made by the pipeline `{about.pipeline}` with the profile "
        f"`{about.profile}` and seed {about.seed}. {_origin(chain)} The steps to this model: {', then '.join(steps)}. "
        f"The whole run made {made} model{'' if made == 1 else 's'} from {number(tokens)} training tokens in "
        f"{duration(total)}."
    )


def _origin(chain: Chain) -> str:
    """Say where the first model came from, as its stage noted; never where on a disk it was."""
    record = base_record(chain.manifests.values())
    if record is None:
        return "Its base model was pretrained in the same run."
    title, kept = str(record.get("title")), str(record["id"])
    if record.get("origin") == "hub" or record.get("revision"):
        commit = f" at commit {code(record['revision'])}" if record.get("revision") else ""
        return f"It starts from {_on_hub(title)}{commit}.{_adjusted(record)}"
    if record.get("origin") == "package":
        place = f"the installed Python package {code(kept)}"
    else:
        place = f"the local {'GGUF file' if kept.endswith('.gguf') else 'folder'} {code(kept)}"
    name = "" if title in ("None", LOCAL, kept) else f", whose files name it {plain(title)}"
    made = f" They say that it was made from {_on_hub(str(found))}." if (found := record.get("base_model")) else ""
    return f"It starts from the checkpoint in {place}{name}.{made}{_adjusted(record)}"


def _adjusted(record: Mapping[str, Any]) -> str:
    """Say what the base stage changed of a given checkpoint before anything was trained."""
    notes = record.get("adjusted") or ()
    return f" Before training: {plain('; '.join(map(str, notes)))}." if notes else ""


def _on_hub(name: str) -> str:
    """Return the name of a repository with its address; another text as it stands."""
    return f"[{plain(name)}](https://huggingface.co/{name})" if HUB_ID.fullmatch(name) else plain(name)


def base_model(chain: Chain) -> str | None:
    """Return the Hub id that the model goes back to, or None where none is known."""
    record = base_record(chain.manifests.values()) or {}
    found = record.get("title") if record.get("origin") == "hub" else record.get("base_model")
    return str(found) if found and HUB_ID.fullmatch(str(found)) else None


def licence_text(licence: RollUp) -> list[str]:
    """Say which licence the published model has, why, what it asks for, and what does not go together."""
    lead = f"Licence of this model: {licence.sentence}"
    if licence.duties:
        lead += f" What it is made from asks who passes it on to: {'; '.join(licence.duties)}."
    notes = [f"- {note[0].upper()}{note[1:]}" for note in licence_facts(licence)]
    return [lead, *(["\n".join(notes)] if notes else []), LICENCE_NOTE]


def front_matter(chain: Chain, about: About, licence: RollUp) -> str:
    """Return the YAML block that the Hub reads, results of the published checkpoint included."""
    from huggingface_hub import ModelCardData

    sources = trained_on(chain, chain.published)
    names = [str(s[key]) for s in sources if s.get("revision") for key in ("title", "id") if s.get(key)]
    hub_data = dict.fromkeys(name for name in names if HUB_ID.fullmatch(name))
    listed = ([s["language"]] if isinstance(s.get("language"), str) else s.get("language") or () for s in sources)
    languages = dict.fromkeys(one_line(language) for languages in listed for language in languages)
    kinds = [c.kind for c in chain.ancestors(chain.published) if not kind_of(c.kind).starts]
    results = _eval_results(chain, about)
    data = ModelCardData(
        language=list(languages) or None,
        license=licence.id,
        license_name=licence.name if licence.id == "other" else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=base_model(chain),
        datasets=list(hub_data) or None,
        tags=list(dict.fromkeys([about.domain, *reversed(kinds), "domain-recipes", *about.tags])),
        model_name=about.model_name if results else None,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _eval_results(chain: Chain, about: About) -> list[EvalResult]:
    """Return the published checkpoint's scores in the Hub's model-index form."""
    from huggingface_hub import EvalResult

    checkpoint = chain[chain.published]
    found: list[tuple[str, str, str, float, str]] = []  # type and name of the data set, type and value of the metric
    for side, title in zip(SIDES, ("General", about.title), strict=True):
        dataset = (f"{about.domain}-{side}", f"{title} questions")
        score, bits = checkpoint.score(side), checkpoint.bits(side)
        if score is not None:
            label = f"accuracy, 95% interval {score['low']:.3f} to {score['high']:.3f}, n = {score['n']}"
            found.append((*dataset, "accuracy", score["score"], label))
        if bits is not None:
            found.append((*dataset, "bits_per_byte", bits, "bits per byte of held-out text"))
    for task, metrics in (checkpoint.exam.get("extra") or {}).items():
        name = one_line(task)
        found += [(name, name, one_line(metric), float(value), one_line(metric)) for metric, value in metrics.items()]
    return [
        EvalResult(
            task_type="text-generation", dataset_type=dataset, dataset_name=name, metric_type=metric,
            metric_value=round(value, 4), metric_name=label,
        )
        for dataset, name, metric, value, label in found
    ]  # fmt: skip
