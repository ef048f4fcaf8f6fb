"""The tables of the model card on how it was made: data, row accounting, lineage, cost.

Usage: `data_table(chain)` and the other functions return Markdown; `common.report.card` puts them in order.

They print what manifests say and compute nothing but sums. Results are `common.report.exam_tables`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from common.config.kinds import kind_of
from common.config.mixture import LENGTH
from common.config.schema import ModelSettings
from common.data.accounting import passes_of
from common.report.chain import EXAM_KIND, Chain
from common.report.licences import BASE, MEASURES, base_record, named
from common.report.markdown import MISSING, code, details, duration, number, percent, plain, short, table
from common.store.artifacts import fingerprint_of

Facts = Mapping[str, Any]
USED_OF_A_GIVEN_BASE = (  # of the settings in `model`
    "dtype", "chat_template", "new_tokens", "control_tokens", "trust_remote_code",
)  # fmt: skip
# Parts of a recipe that have a section of their own, so that the settings stay readable.
ELSEWHERE = frozenset({"inputs", "data", "corpus", "code", "kind", "stage", "parent", "schema"})


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
    titles = dict.fromkeys(f"- {code(s['id'])}: {plain(s['title'])}" for s in sources if s.get("title"))
    body = table(
        sources,
        {
            "Source": lambda s: code(s["id"]),
            "Role": lambda s: plain(s.get("role") or MISSING),
            "Licence": lambda s: plain(s.get("licence") or "not stated"),
            "Revision or digest": lambda s: short(s.get("revision") or s.get("digest")),
            "Used by": lambda s: _stage_list(s["stages"]),
            "Rows": lambda s: number(s.get("rows")),
        },
        text=5,
    )
    forms = dict.fromkeys(f"- {code(s['id'])}: {_form_of(s['form'])}" for s in sources if s.get("form"))
    lists = ["\n".join(lines) for lines in (titles, forms) if lines]
    return "\n\n".join([body, *lists]) if body else "No source was recorded."


def _form_of(form: Facts) -> str:
    """Say how the records of a source were written down, where that is defined, and with which settings."""
    settings = ", ".join(
        f"{name} {code(json.dumps(value, ensure_ascii=False))}" for name, value in form["settings"].items()
    )
    ours = f" Ours: {plain(form['ours'])}." if form.get("ours") else ""
    given = f" Settings: {settings}." if settings else ""
    return f"written as {code(form['name'])}, {plain(form['phrase'])}: {plain(form['paper'])}.{ours}{given}"


def _stage_list(stages: Sequence[str]) -> str:
    """Name the stages, but three exams or more by their number."""
    exams = [name for name in stages if name.startswith("exam-")]
    names = [f"`{name}`" for name in stages if len(exams) < 3 or name not in exams]
    return ", ".join(names + (["all exams" if not names else f"{len(exams)} exams"] if len(exams) >= 3 else []))


def cleaning_table(chain: Chain) -> str:
    """What each block of cleaning did to the rows of each role, in its order; nothing where none was cleaned."""
    return table(
        measured_parts(chain, "blocks"),
        {
            "Stage": lambda row: code(row[0]),
            "Block": lambda row: plain(row[1]),
            "Rows seen": lambda row: number(row[2]["seen"]),
            "Dropped": lambda row: number(row[2]["dropped"]),
            "Of those seen": lambda row: percent(row[2]["dropped"] / max(1, row[2]["seen"])),
            "Changes": lambda row: number(row[2]["changed"]),
        },
        text=2,
    )


def mixture_table(chain: Chain) -> str:
    """The shares of tokens that were asked of each source, the real ones, and the passes over it."""
    return table(
        measured_parts(chain, "mixture"),
        {
            "Stage": lambda row: code(row[0]),
            "Source": lambda row: code(row[1]),
            "Asked": lambda row: percent(row[2]["asked"]),
            "Real": lambda row: percent(row[2]["real"]),
            "Passes": lambda row: passes_of(row[2]["epochs"], row[2].get("cut_short", False)),
        },
        text=2,
    )


def course_tables(chain: Chain) -> list[str]:
    """Return a table for each stage with a mixture: the real shares of sources and of replay over the steps."""
    found = []
    for stage, manifest in chain.manifests.items():
        lines = manifest["metrics"].get("mixture_course") or []
        if not lines:
            continue
        curriculum = ((manifest.get("settings") or {}).get("mixture") or {}).get("curriculum") or {}
        columns: dict[str, Callable[[Facts], str]] = {
            f"Steps of {code(stage)}": lambda line: f"{number(line['first'])} to {number(line['last'])}",
            **{code(name): _share_of(name) for name in lines[0]["shares"]},
            "Replay": lambda line: percent(line["replay"]),
        }
        if any("mean" in line for line in lines):
            by = curriculum.get("by", LENGTH)
            columns[f"Mean {code(by)}"] = lambda line: f"{line['mean']:.4g}" if "mean" in line else MISSING
        found.append(table(lines, columns, text=0))
    return found


def _share_of(source: str) -> Callable[[Facts], str]:
    return lambda line: percent(line["shares"][source])


def measured_parts(chain: Chain, name: str) -> list[tuple[str, str, Facts]]:
    """Return what stages measured part by part under one name: the stage, the part, and its numbers."""
    return [
        (stage, part, facts)
        for stage, manifest in chain.manifests.items()
        for part, facts in (manifest["metrics"].get(name) or {}).items()
    ]


def rows_table(chain: Chain) -> str:
    """How many rows each training stage read, dropped, changed and trained on."""
    rows = [(name, facts) for name, manifest in chain.manifests.items() for facts in manifest.get("rows", ())]
    return (
        table(
            rows,
            {
                "Stage": lambda row: code(row[0]),
                "Source": lambda row: f"{code(row[1]['source'])}{', read again' if row[1].get('again') else ''}",
                "Role": lambda row: plain(row[1].get("role") or MISSING),
                "Rows in": lambda row: number(row[1].get("rows_in")),
                "Tokens in": lambda row: row[1].get("tokens_in", MISSING),
                "Dropped": lambda row: reasons(row[1].get("dropped") or {}, "0"),
                "Changed": lambda row: reasons(row[1].get("changed") or {}, "0"),
                "Truncated": lambda row: str(row[1].get("truncated") or 0),
                "Rows out": lambda row: _rows_out(row[1]),
                "Tokens": lambda row: row[1].get("tokens_left") or number(row[1].get("tokens")),
                "Passes": lambda row: passes_of(row[1].get("epochs") or 0.0, row[1].get("cut_short", False)),
                "Masked": lambda row: percent(row[1].get("masked_share")),
            },
            text=3,
        )
        or "No stage recorded its rows."
    )


def _rows_out(count: Facts) -> str:
    """Return the rows that a stage was given, and the records that they are made of, where those are more."""
    made = number(count.get("rows_out"))
    return f"{made}, of {count['rows_out'] + count['joined']:,} records" if count.get("joined") else made


def reasons(counts: Mapping[str, int], none: str = "none") -> str:
    """Return `3 empty, 2 exam` for counts by reason."""
    return ", ".join(f"{count:,} {plain(reason)}" for reason, count in sorted(counts.items()) if count) or none


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
    parts = [plain(facts["cpu"])] if facts.get("cpu") else []
    parts += [f"{facts['cores']} CPU cores"] if facts.get("cores") else []
    parts += [f"{float(facts['memory_gb']):.0f} GB of memory"] if facts.get("memory_gb") else []
    parts += [f"GPU {plain(facts['gpu'])}" if facts.get("gpu") else "no GPU"]
    processes = int(manifest.get("processes") or 1)
    return ", ".join([*parts, f"{processes} processes"] if processes > 1 else parts)


def versions(chain: Chain) -> str:
    """Every library's version; several where stages were made with different ones."""
    found: dict[str, dict[str, None]] = {}
    for manifest in chain.manifests.values():
        for library, version in (manifest.get("versions") or {}).items():
            found.setdefault(str(library), {})[str(version)] = None
    return table(sorted(found), {"Library": plain, "Version": lambda library: plain(", ".join(found[library]))}, text=2)
