"""The tables of the model card: results, data, row accounting, lineage, cost.

Usage: `results_table(chain)` and the other functions return Markdown; `common.report.card` puts them in order.

They print what manifests and exams say and compute nothing but sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from common.config.kinds import kind_of
from common.config.schema import ModelSettings
from common.evaluation.comparison import Comparison, TextComparison
from common.report.chain import EXAM_KIND, Chain, Checkpoint
from common.report.licences import BASE, MEASURES, base_record, named
from common.report.markdown import (
    MISSING,
    change_interval,
    code,
    details,
    duration,
    interval,
    number,
    p_value,
    percent,
    points,
    short,
    table,
)
from common.store.artifacts import fingerprint_of

Facts = Mapping[str, Any]
USED_OF_A_GIVEN_BASE = ("dtype", "chat_template", "new_tokens", "trust_remote_code")  # of the settings in `model`
# Parts of a recipe that have a section of their own, so that the settings stay readable.
ELSEWHERE = frozenset({"inputs", "data", "corpus", "code", "kind", "stage", "parent", "schema"})
WRITTEN_NOTE = (
    "Answers are generated greedily. Exact: equal to an accepted answer, compared as a number, or as words without "
    "case, punctuation and articles. Stopped: ended by themselves. F1: overlap of words with the accepted answer."
)
LANGUAGE_NOTE = (
    "For the domain's questions and held-out texts. Same language: share of written answers in the language of their "
    "question. Tokens per character: the tokenizer's fertility in the language. Twice as many tokens cost twice as "
    "much and fill the context twice as fast."
)
PROBE_NOTE = "Probe questions do not count in any score above."


def results_table(chain: Chain) -> str:
    """The chain, one row per checkpoint."""
    return table(
        chain.checkpoints,
        {
            "Model": lambda c: _name(chain, c),
            "Continues from": lambda c: code(c.parent),
            "General score [95%]": lambda c: interval(c.score("general")),
            "Domain score [95%]": lambda c: interval(c.score("domain")),
            "Bits per byte general [95%]": lambda c: _bits(c, "general"),
            "Bits per byte domain [95%]": lambda c: _bits(c, "domain"),
            "Tokens": lambda c: number(c.manifest.get("tokens")),
            "Wall time": lambda c: duration(c.manifest.get("seconds")),
            "Tokens/s": lambda c: number(c.manifest.get("tokens_per_second")),
        },
        text=2,
    )


def _bits(checkpoint: Checkpoint, side: str) -> str:
    """Bits per byte, with the interval where the exam has several documents."""
    value, facts = number(checkpoint.bits(side), 3), checkpoint.text_score(side) or {}
    return value if facts.get("low") is None else f"{value} [{facts['low']:.3f}, {facts['high']:.3f}]"


def text_comparison_table(comparisons: Sequence[TextComparison]) -> str:
    """Every paired comparison by the bits per byte of held-out texts."""
    return table(
        comparisons,
        {
            "Before": lambda c: code(c.before),
            "After": lambda c: code(c.after),
            "Held-out text": lambda c: c.side,
            "Documents": lambda c: number(c.n),
            "Bits per byte before": lambda c: number(c.bits_before, 3),
            "Bits per byte after": lambda c: number(c.bits_after, 3),
            "Change [95%]": lambda c: change_interval(c.change, c.low, c.high),
        },
        text=3,
    )


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """Every paired comparison of the card."""
    return table(
        comparisons,
        {
            "Before": lambda c: code(c.before),
            "After": lambda c: code(c.after),
            "Exam": lambda c: c.side,
            "Questions": lambda c: number(c.n),
            "Gained": lambda c: str(c.gained),
            "Lost": lambda c: str(c.lost),
            "Difference, points [95%]": lambda c: f"{points(c.difference)} [{points(c.low)}, {points(c.high)}]",
            "McNemar p": lambda c: p_value(c.p),
            "Holm p": lambda c: p_value(c.p_holm),
        },
        text=3,
    )


def exam_details(chain: Chain) -> list[str]:
    """Return headings, notes and tables for every detail that at least one exam has."""

    def rows_of(part: str) -> list[tuple[Checkpoint, str, Any]]:
        return [(c, name, facts) for c in chain.checkpoints for name, facts in (c.exam.get(part) or {}).items()]

    further = [(c, task, metric, value) for c, task, metrics in rows_of("extra") for metric, value in metrics.items()]
    sections = (
        ("Written answers", WRITTEN_NOTE, table(rows_of("written"), {
            "Model": lambda row: _name(chain, row[0]),
            "Exam": lambda row: row[1],
            "Exact [95%]": lambda row: interval(row[2]["exact"]),
            "Stopped [95%]": lambda row: interval(row[2]["stopped"]),
            "F1": lambda row: percent(row[2]["f1"]),
            "Same language [95%]": lambda row: interval(row[2].get("in_language")),
        }, text=2)),
        ("By language", LANGUAGE_NOTE, table(rows_of("languages"), {
            "Model": lambda row: _name(chain, row[0]),
            "Language": lambda row: row[1],
            "Domain score [95%]": lambda row: interval(row[2].get("exam")),
            "Same language [95%]": lambda row: interval(row[2].get("in_language")),
            "Bits per byte": lambda row: number(row[2].get("bits_per_byte"), 3),
            "Tokens per character": lambda row: number(row[2].get("tokens_per_character"), 3),
        }, text=2)),
        ("Probes", PROBE_NOTE, _columns_table(chain, "probes")),
        ("By source", "", _columns_table(chain, "sources")),
        ("Further benchmarks", "", table(further, {
            "Model": lambda row: _name(chain, row[0]),
            "Benchmark": lambda row: row[1],
            "Metric": lambda row: row[2],
            "Value": lambda row: f"{float(row[3]):.4f}",
        }, text=3)),
    )  # fmt: skip
    found = [part for title, note, body in sections if body for part in (f"### {title}", note, body) if part]
    missing = dict.fromkeys(name for c in chain.checkpoints for name in c.exam.get("left_out") or ())
    if missing:
        names = ", ".join(map(code, missing))
        found.append(f"Benchmarks left out, as their data sets could not be loaded when the exam was held: {names}.")
    return found


def _columns_table(chain: Chain, part: str) -> str:
    """One column per probe or source, one row per checkpoint."""
    found = {name: facts["n"] for c in chain.checkpoints for name, facts in (c.exam.get(part) or {}).items()}
    columns = {
        f"{name} (n = {n})": lambda c, name=name: interval((c.exam.get(part) or {}).get(name))
        for name, n in found.items()
    }
    return table(chain.checkpoints, {"Model": lambda c: _name(chain, c), **columns}) if found else ""


def _name(chain: Chain, checkpoint: Checkpoint) -> str:
    return f"**`{checkpoint.name}`**" if checkpoint.name == chain.published else f"`{checkpoint.name}`"


def merged_sources(chain: Chain) -> list[dict[str, Any]]:
    """Return every source once per role, with the stages that used it: of those that count rows, the ones read."""
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for name, manifest in chain.manifests.items():
        read = {str(row["source"]) for row in manifest.get("rows", ())}
        for source in manifest.get("sources", ()):
            if read and str(source["id"]) not in read:
                continue
            entry = merged.setdefault((str(source["id"]), str(source.get("role", ""))), {**source, "stages": []})
            if name not in entry["stages"]:
                entry["stages"].append(name)
    for entry in merged.values():
        entry["role"] = _roles_read(chain, entry)
        if entry["role"] == BASE and not entry.get("revision"):
            entry["digest"] = _given_digest(chain.manifests[entry["stages"][0]])
    return list(merged.values())


def _roles_read(chain: Chain, source: Facts) -> str:
    """Return a source's role; of several only those that this chain used, by the rows that its stages read."""
    stated = str(source.get("role", ""))
    if ", " not in stated:
        return stated
    rows = [row for manifest in chain.manifests.values() for row in manifest.get("rows", ())]
    read = [str(row.get("role")) for row in rows if row["source"] == source["id"]]
    trained = dict.fromkeys(role for role in read if not role.startswith(MEASURES))
    return ", ".join([*trained, *(["eval"] if "eval" in stated.split(", ") else [])]) or stated


def _given_digest(manifest: Facts) -> str | None:
    """Return one digest for the files of a checkpoint that was given; None where a commit identifies it."""
    model = (manifest.get("recipe") or {}).get("model") or {}
    if model.get("gguf"):
        return str(model["gguf"])
    return fingerprint_of(model["files"]) if model.get("files") else None


def data_table(chain: Chain) -> str:
    """Every source with its licence, and below the table what the sources are called."""
    sources = merged_sources(chain)
    titles = dict.fromkeys(f"- `{s['id']}`: {s['title']}" for s in sources if s.get("title"))
    body = table(
        sources,
        {
            "Source": lambda s: code(s["id"]),
            "Role": lambda s: str(s.get("role") or MISSING),
            "Licence": lambda s: str(s.get("licence") or "not stated"),
            "Revision or digest": lambda s: short(s.get("revision") or s.get("digest")),
            "Used by": lambda s: _stage_list(s["stages"]),
            "Rows": lambda s: number(s.get("rows")),
        },
        text=5,
    )
    return "\n\n".join([body, *(["\n".join(titles)] if titles else [])]) if body else "No source was recorded."


def _stage_list(stages: Sequence[str]) -> str:
    """Name the stages, but three exams or more by their number."""
    exams = [name for name in stages if name.startswith("exam-")]
    names = [f"`{name}`" for name in stages if len(exams) < 3 or name not in exams]
    return ", ".join(names + (["all exams" if not names else f"{len(exams)} exams"] if len(exams) >= 3 else []))


def rows_table(chain: Chain) -> str:
    """How many rows each training stage read, dropped, changed and trained on."""
    rows = [(name, facts) for name, manifest in chain.manifests.items() for facts in manifest.get("rows", ())]
    return (
        table(
            rows,
            {
                "Stage": lambda row: code(row[0]),
                "Source": lambda row: code(row[1]["source"]),
                "Role": lambda row: str(row[1].get("role") or MISSING),
                "Rows in": lambda row: number(row[1].get("rows_in")),
                "Dropped": lambda row: reasons(row[1].get("dropped") or {}, "0"),
                "Changed": lambda row: reasons(row[1].get("changed") or {}, "0"),
                "Truncated": lambda row: str(row[1].get("truncated") or 0),
                "Rows out": lambda row: number(row[1].get("rows_out")),
                "Tokens": lambda row: number(row[1].get("tokens")),
                "Epochs": lambda row: number(row[1].get("epochs"), 2),
                "Masked": lambda row: percent(row[1].get("masked_share")),
            },
            text=3,
        )
        or "No stage recorded its rows."
    )


def reasons(counts: Mapping[str, int], none: str = "none") -> str:
    """Return `3 empty, 2 exam` for counts by reason."""
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items()) if count) or none


def recipes(chain: Chain) -> str:
    """Each stage's settings, folded; equal settings of several exams once."""
    blocks: dict[str, str] = {}
    for name, manifest in chain.manifests.items():
        recipe = {key: value for key, value in (manifest.get("recipe") or {}).items() if key not in ELSEWHERE}
        if record := base_record([manifest]):
            recipe = {"seed": manifest.get("seed"), "model": _given(recipe.get("model") or {}, record)}
        elif "settings" in manifest:  # with defaults, which a recipe leaves out
            recipe["settings"] = manifest["settings"]
        text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=100)
        key = text if manifest["kind"] == EXAM_KIND else name
        blocks.setdefault(key, details(f"{name} ({manifest['kind']})", "yaml", text))
    return "\n\n".join(blocks.values())


def _given(model: Facts, record: Facts) -> dict[str, Any]:
    """Return the settings that a checkpoint was taken with, defaults included, and what identifies it."""
    name = record.get("title") if record.get("origin") == "hub" else record["id"]
    used = {key: model.get(key, ModelSettings.model_fields[key].default) for key in USED_OF_A_GIVEN_BASE}
    identity = {key: model[key] for key in ("revision", "gguf", "files") if key in model}
    return {"path": name, **{key: list(v) if isinstance(v, tuple) else v for key, v in used.items()}, **identity}


def lineage_table(chain: Chain) -> str:
    """What each stage was made from, by fingerprint and digest."""

    def inputs(m: Facts) -> str:
        if record := base_record([m]):
            return f"{named(record)} {short(record.get('revision') or _given_digest(m))}"
        return ", ".join(f"`{name}` {short(facts['fingerprint'])}" for name, facts in m.get("inputs", {}).items())

    def commit(m: Facts) -> str:
        git = m.get("git") or {}
        return short(git.get("commit")) + (" + local changes" if git.get("commit") and git.get("dirty") else "")

    return table(
        chain.manifests.items(),
        {
            "Stage": lambda row: code(row[0]),
            "Fingerprint": lambda row: short(row[1]["fingerprint"]),
            "Made from": lambda row: inputs(row[1]) or MISSING,
            "Result digest": lambda row: short(row[1].get("digest")),
            "Seed": lambda row: str(row[1].get("seed", MISSING)),
            "Code digest": lambda row: short((row[1].get("code") or {}).get("digest")),
            "Commit": lambda row: commit(row[1]),
        },
        text=7,
    )


def cost_table(chain: Chain) -> str:
    """Wall time by stage, that of all exams together, and the sum."""
    exams = [m for m in chain.manifests.values() if m["kind"] == EXAM_KIND]
    rows = [(code(name), [m]) for name, m in chain.manifests.items() if kind_of(m["kind"]).makes != "report"]
    rows += [(f"{len(exams)} exams", exams)] if exams else []
    rows += [("**Total**", list(chain.manifests.values()))]

    def total(manifests: Sequence[Facts], key: str, kinds: tuple[str, ...] = ()) -> float:
        return sum(float(m.get(key) or 0) for m in manifests if m["kind"] not in kinds)

    return table(
        rows,
        {
            "Stage": lambda row: row[0],
            "Wall time": lambda row: duration(total(row[1], "seconds")),
            "Training time": lambda row: duration(total(row[1], "train_seconds", (EXAM_KIND,))),
            "Precision": lambda row: _precision(row[1]),
            "Training tokens": lambda row: number(total(row[1], "tokens", (EXAM_KIND,))),
        },
    )


def _precision(manifests: Sequence[Facts]) -> str:
    """Return what stages trained in, or nothing for those that did not train."""
    found = {(m.get("settings") or {}).get("precision") for m in manifests if m.get("train_seconds")}
    return ", ".join(sorted(str(name) for name in found if name)) or MISSING


def hardware(chain: Chain) -> str:
    """Name the machines that made the chain, by type and never by host name."""
    machines: dict[str, list[str]] = {}
    for name, manifest in chain.manifests.items():
        machines.setdefault(_machine(manifest), []).append(name)
    if len(machines) == 1:
        return f"Hardware: {next(iter(machines))}."
    return "\n".join(f"- {machine}: {_stage_list(stages)}" for machine, stages in machines.items())


def _machine(manifest: Facts) -> str:
    facts = manifest.get("hardware") or {}
    parts = [str(facts["cpu"])] if facts.get("cpu") else []
    parts += [f"{facts['cores']} CPU cores"] if facts.get("cores") else []
    parts += [f"{float(facts['memory_gb']):.0f} GB of memory"] if facts.get("memory_gb") else []
    parts += [f"GPU {facts['gpu']}" if facts.get("gpu") else "no GPU"]
    processes = int(manifest.get("processes") or 1)
    return ", ".join([*parts, f"{processes} processes"] if processes > 1 else parts)


def versions(chain: Chain) -> str:
    """Every library's version; several where stages were made with different ones."""
    found: dict[str, dict[str, None]] = {}
    for manifest in chain.manifests.values():
        for library, version in (manifest.get("versions") or {}).items():
            found.setdefault(str(library), {})[str(version)] = None
    return table(sorted(found), {"Library": str, "Version": lambda library: ", ".join(found[library])}, text=2)
