"""The sections of the model card that are tables: results, data, row accounting, lineage, cost.

Usage: `results_table(chain)` and its like return Markdown; `common.report.card` puts them in order.

They print what manifests and exams say and compute nothing but sums.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from common.config.kinds import kind_of
from common.report.chain import EXAM_KIND, SIDES, Chain, Checkpoint
from common.report.comparisons import Comparison
from common.report.markdown import MISSING, details, duration, interval, number, p_value, percent, points, short, table

# Parts of a recipe that have a section of their own, so that the settings stay readable.
TOLD_ELSEWHERE = frozenset({"inputs", "data", "corpus", "code", "kind", "stage", "parent", "schema"})
UNBALANCED = 0.1  # above chance by this much, the commonest answer alone looks like skill


def results_table(chain: Chain) -> str:
    """The chain, one row per checkpoint."""
    heads = ["Checkpoint", "Continues from", "General score [95%]", "Domain score [95%]"]
    heads += ["Bits per byte general", "Bits per byte domain", "Tokens", "Wall time", "Tokens/s"]
    rows = []
    for c in chain.checkpoints:
        name = f"**`{c.name}`**" if c.name == chain.published else f"`{c.name}`"
        row = [name, f"`{c.parent}`" if c.parent else MISSING]
        row += [interval(c.score(side)) for side in SIDES]
        row += [number(c.bits(side), 3) for side in SIDES]
        row += [number(c.manifest.get("tokens")), duration(c.manifest.get("seconds"))]
        rows.append([*row, number(c.manifest.get("tokens_per_second"))])
    return table(heads, rows, right=range(2, 9))


def extra_table(chain: Chain) -> str:
    """Further benchmarks of the exam, or nothing where none was asked for."""
    rows = []
    for c in chain.checkpoints:
        for task, metrics in (c.exam.get("extra") or {}).items():
            rows += [[f"`{c.name}`", task, metric, f"{float(value):.4f}"] for metric, value in metrics.items()]
    return table(["Checkpoint", "Benchmark", "Metric", "Value"], rows, right=[3]) if rows else ""


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """Every paired comparison of the card."""
    heads = ["Before", "After", "Exam", "Questions", "Gained", "Lost"]
    heads += ["Difference, points [95%]", "McNemar p", "Holm p"]
    rows = [
        [
            f"`{c.before}`",
            f"`{c.after}`",
            c.side,
            number(c.n),
            str(c.gained),
            str(c.lost),
            f"{points(c.difference)} [{points(c.low)}, {points(c.high)}]",
            p_value(c.p).removeprefix("p ").removeprefix("= "),
            p_value(c.p_holm).removeprefix("p ").removeprefix("= "),
        ]
        for c in comparisons
    ]
    return table(heads, rows, right=range(3, 9))


def merged_sources(chain: Chain) -> list[dict[str, Any]]:
    """Return every source once per role, with the stages that used it."""
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for name, manifest in chain.manifests.items():
        for source in manifest.get("sources", ()):
            entry = merged.setdefault((str(source["id"]), str(source.get("role", ""))), {**source, "stages": []})
            if name not in entry["stages"]:
                entry["stages"].append(name)
    return list(merged.values())


def data_table(chain: Chain) -> str:
    heads = ["Source", "Title", "Role", "Licence", "Revision or digest", "Rows", "Used by"]
    rows = [
        [
            f"`{source['id']}`",
            str(source.get("title") or MISSING),
            str(source.get("role") or MISSING),
            str(source.get("licence") or "not stated"),
            short(source.get("revision") or source.get("digest")),
            number(source.get("rows")),
            _stage_list(source["stages"]),
        ]
        for source in merged_sources(chain)
    ]
    return table(heads, rows, right=[5]) if rows else "No source was recorded."


def _stage_list(stages: Sequence[str]) -> str:
    """Name the stages; many exams are one word."""
    exams = [name for name in stages if name.startswith("exam-")]
    names = [f"`{name}`" for name in stages if len(exams) < 3 or name not in exams]
    return ", ".join(names + (["all exams" if not names else f"{len(exams)} exams"] if len(exams) >= 3 else []))


def rows_table(chain: Chain) -> str:
    """What became of every row that a training stage read."""
    heads = ["Stage", "Source", "Role", "Rows in", "Dropped", "Truncated", "Rows out", "Tokens", "Epochs", "Masked"]
    rows = []
    for name, manifest in chain.manifests.items():
        for a in manifest.get("rows", ()):
            row = [f"`{name}`", f"`{a['source']}`", str(a.get("role") or MISSING), number(a.get("rows_in"))]
            row += [_dropped(a.get("dropped") or {}), str(a.get("truncated") or 0), number(a.get("rows_out"))]
            row += [number(a.get("tokens")), number(a.get("epochs"), 2), percent(a.get("masked_share"))]
            rows.append(row)
    return table(heads, rows, right=(3, 5, 6, 7, 8, 9)) if rows else "No stage recorded its rows."


def _dropped(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items()) if count) or "0"


def recipes(chain: Chain) -> str:
    """Each stage's settings, folded; equal settings of several exams once."""
    blocks: list[str] = []
    exams: list[str] = []
    for name, manifest in chain.manifests.items():
        text = yaml.safe_dump(settings_of(manifest), sort_keys=False, allow_unicode=True, width=100)
        if manifest["kind"] == EXAM_KIND and text in exams:
            continue
        exams += [text] if manifest["kind"] == EXAM_KIND else []
        blocks.append(details(f"{name} ({manifest['kind']})", "yaml", text))
    return "\n\n".join(blocks)


def settings_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a recipe that a reader would set: no data and no digests, which are told elsewhere."""
    recipe = manifest.get("recipe") or {}
    if "settings" in manifest:  # with defaults, which a recipe leaves out
        recipe = {**recipe, "settings": manifest["settings"]}
    return {key: value for key, value in recipe.items() if key not in TOLD_ELSEWHERE}


def lineage_table(chain: Chain) -> str:
    heads = ["Stage", "Fingerprint", "Made from", "Result digest", "Seed", "Code digest", "Commit"]
    rows = []
    for name, m in chain.manifests.items():
        inputs = ", ".join(f"`{i}` {short(facts['fingerprint'])}" for i, facts in m.get("inputs", {}).items())
        row = [f"`{name}`", short(m["fingerprint"]), inputs or MISSING, short(m.get("digest"))]
        row += [str(m.get("seed", MISSING)), short((m.get("code") or {}).get("digest")), commit_of(m)]
        rows.append(row)
    return table(heads, rows)


def commit_of(manifest: Mapping[str, Any]) -> str:
    git = manifest.get("git") or {}
    if not git.get("commit"):
        return MISSING
    return short(git["commit"]) + (" + local changes" if git.get("dirty") else "")


def cost_table(chain: Chain) -> str:
    """Wall time by kind of work, and the sum."""
    exams = [m for m in chain.manifests.values() if m["kind"] == EXAM_KIND]
    made = {name: manifest for name, manifest in chain.manifests.items() if kind_of(manifest["kind"]).makes != "report"}
    rows = [[f"`{name}`", *_cost([manifest])] for name, manifest in made.items()]
    if exams:
        rows.append([f"{len(exams)} exams", *_cost(exams)])
    rows.append(["**Total**", *_cost(list(chain.manifests.values()))])
    return table(["Stage", "Wall time", "Of it in training", "Tokens trained on"], rows, right=(1, 2, 3))


def _cost(manifests: Sequence[Mapping[str, Any]]) -> list[str]:
    trained = [m for m in manifests if m["kind"] != EXAM_KIND]
    return [
        duration(sum(float(m.get("seconds") or 0) for m in manifests)),
        duration(sum(float(m.get("train_seconds") or 0) for m in trained)),
        number(sum(int(m.get("tokens") or 0) for m in trained)),
    ]


def hardware(chain: Chain) -> str:
    """Say which machines made the chain, by type and never by name."""
    kinds: dict[str, list[str]] = {}
    for name, manifest in chain.manifests.items():
        kinds.setdefault(_machine(manifest), []).append(name)
    if len(kinds) == 1:
        return f"Made on {next(iter(kinds))}."
    return "\n".join(f"- {machine}: {_stage_list(stages)}" for machine, stages in kinds.items())


def _machine(manifest: Mapping[str, Any]) -> str:
    facts = manifest.get("hardware") or {}
    parts = [str(facts["cpu"])] if facts.get("cpu") else []
    parts += [f"{facts['cores']} CPU cores"] if facts.get("cores") else []
    parts += [f"{float(facts['memory_gb']):.0f} GB of memory"] if facts.get("memory_gb") else []
    parts += [f"GPU {facts['gpu']}" if facts.get("gpu") else "no GPU"]
    processes = int(manifest.get("processes") or 1)
    return ", ".join([*parts, f"{processes} processes"] if processes > 1 else parts)


def validation_sentences(chain: Chain) -> list[str]:
    """Tell of every stage that read rows which never trained: how its loss on them went, and which weights it kept."""
    sentences = []
    for checkpoint in chain.checkpoints:
        found = checkpoint.manifest.get("metrics", {}).get("validation")
        if not found:
            continue
        looks = found["looks"]
        best = min(looks, key=lambda look: float(look["loss"]))
        sentences.append(
            f"`{checkpoint.name}` read {found['rows']:,} rows that never train {len(looks)} times: their loss was "
            f"{looks[0]['loss']:.3f} at step {looks[0]['step']}, {best['loss']:.3f} at its best (step {best['step']}) "
            f"and {looks[-1]['loss']:.3f} at the end; the weights of step {found['kept']} went on."
        )
    return sentences


def guard_sentences(chain: Chain) -> list[str]:
    """Tell of every stage whose training was taken back because of its loss."""
    return [
        f"The training of `{c.name}` was taken back where its loss broke or rose: the rows of {number(steps)} steps "
        "were passed over."
        for c in chain.checkpoints
        if (steps := c.manifest.get("metrics", {}).get("passed_over_steps"))
    ]


def versions(chain: Chain) -> str:
    """Every library's version; several where stages were made with different ones."""
    found: dict[str, list[str]] = {}
    for manifest in chain.manifests.values():
        for library, version in (manifest.get("versions") or {}).items():
            if str(version) not in found.setdefault(str(library), []):
                found[str(library)].append(str(version))
    return table(["Library", "Version"], [[name, ", ".join(found[name])] for name in sorted(found)]) if found else ""


def majority_sentences(chain: Chain) -> list[str]:
    """Warn of exams whose answers are unbalanced: there a model that always answers the same looks able."""
    warnings = []
    for side in ("domain", "general"):
        records = next((list(c.records.values()) for c in chain.checkpoints if c.score(side) is not None), [])
        records = [r for r in records if r["side"] == side and "scores" in r]  # only questions with choices
        answers = Counter(r["answer"] for r in records)
        if not answers:
            continue
        share = max(answers.values()) / answers.total()
        chance = sum(1 / len(r["scores"]) for r in records) / answers.total()
        if share > chance + UNBALANCED:
            warnings.append(
                f"The {side} exam's answers are unbalanced: always giving the commonest one scores {share:.1%}, and "
                f"guessing {chance:.1%}. A score at or below the first shows no skill, and a rise up to it none either."
            )
    return warnings


def preference_sentence(checkpoint: Checkpoint) -> str:
    """The held-out preference accuracy of a stage that was tuned on pairs, or nothing."""
    accuracy = checkpoint.manifest.get("metrics", {}).get("preference_accuracy")
    if not accuracy:
        return ""
    if "before" in accuracy:
        return (
            f"`{checkpoint.name}` gives the preferred answer of a held-out pair the better odds, token for token, in "
            f"{interval(accuracy)} of {accuracy['n']:,} pairs; the stage before did in {accuracy['before']:.2f}."
        )
    return (
        f"`{checkpoint.name}` raises the probability of the preferred answer of a held-out pair more than that of the "
        f"other in {interval(accuracy)} of {accuracy['n']:,} pairs; 50% would be chance."
    )
