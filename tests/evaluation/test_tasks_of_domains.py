"""The harness files of the domains: our own tasks on small local files of the same columns, and the groups' names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.config.stages import EvaluateSettings
from common.evaluation import extra, harness
from common.evaluation.exam import ExamQuestions, Result, run_exam

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]
ROOT = Path(__file__).parents[2]
FIXTURES = Path(__file__).parent / "fixtures"
DOMAINS = ("cybersecurity", "finance", "legal", "math", "medical", "multilingual")
GENERAL = ROOT / "common" / "evaluation" / "benchmarks" / "general_benchmarks.yaml"
GROUPS = {domain: ROOT / "domains" / domain / "eval" / "benchmarks.yaml" for domain in DOMAINS} | {"general": GENERAL}
FILES = sorted(ROOT.glob("domains/*/eval/*.yaml"))
OWN = {
    path.stem: path for path in FILES if "\ntask: " in "\n" + path.read_text(encoding="utf-8")
}  # a group lists its tasks

# Data sets that datasets 5 refuses, by a probe of July 2026 (EleutherAI/lm-evaluation-harness #3171) and by their
# files; tasks over them, or that need the unitxt package.
REFUSED_DATA = {
    "CogComp/mc_taco", "EleutherAI/advanced_ai_risk", "EleutherAI/arithmetic", "EleutherAI/hendrycks_ethics",
    "EleutherAI/logiqa", "EleutherAI/mutual", "EleutherAI/persona", "EleutherAI/pile", "EleutherAI/sycophancy",
    "EleutherAI/unscramble", "allenai/math_qa", "allenai/qasper", "allenai/social_i_qa", "asi/wikitext_fr",
    "baber/logiqa2", "bigbio/meddialog", "bigbio/mediqa_qa", "bigbio/meqsum", "bigbio/pubmed_qa", "corypaik/prost",
    "csebuetnlp/xlsum", "facebook/flores",
}  # fmt: skip
REFUSED_NAMES = re.compile(
    r"pubmedqa|multimedqa|mediqa_qa2019.*|meddialog_raw_.*|meqsum|flores.*|.*_bench_flores_.*|logiqa2?|"
    r"hendrycks_ethics|unscramble|mc_taco|mutual|qasper|pile_.*|financial_tweets|unfair_tos|law_stack_exchange|"
    r"medical_abstracts"
)

# For each row that a task asks, in order: words of its prompt, replies that are right, a reply that is wrong.
EXPECTED: dict[str, list[tuple[list[str], list[str], str]]] = {
    "pubmedqa_500": [
        (["glass of water before bed", "They slept as long as before."], ["no"], "yes"),
        (["warm socks"], ["yes"], "maybe"),
        (["nap at noon"], ["maybe"], "no"),
    ],
    "fpb": [
        (["Net sales of the pump maker"], ["positive"], "neutral"),
        (["annual meeting"], ["neutral"], "negative"),
        (["mill will close"], ["negative"], "positive"),
    ],
    "fiqa_sa": [(["$ACME up 9%"], ["positive"], "negative"), (["weak winter"], ["negative"], "neutral")],
    "finqa": [
        (
            ["growth of net sales", "net sales | $ 460 | $ 400", "sales grew in every region . prices were stable ."],
            ["Answer: 15%", "60 / 400\nAnswer: 0.15"],
            "Answer: 15.4%",
        ),
        (["net sales less costs"], ["460 - 310.\nAnswer: $150.00 million"], "150\nAnswer: 140"),
        (["did costs exceed"], ["Answer: Yes."], "Answer: no"),
        (["change of costs", "costs | ( 310 ) | ( 290 )"], ["Answer: (20)", "Answer: -20.0"], "Answer: 20"),
    ],
    "tatqa": [
        (["By which method"], ["Answer: The modified method."], "Answer: in full"),
        (["adjustment in 2019", "in millions", "Adjustment | (3.1) | (2.0)"], ["Answer: -3.1", "(3.1)"], "Answer: 3.1"),
        (["percentage change", "Give percentages."], ["131.7 / 700\nAnswer: 18.8%"], "Answer: 19.1%"),
        (["Which years"], ["Answer: 2018; 2019"], "Answer: 2016; 2017"),
        (["How many quarters"], ["Answer: 1"], "Answer: 2"),
        (["change in orders", "in thousands", "Orders | 12\n\nOrders were stable."], ["Answer: \u22124"], "Answer: 4"),
    ],
    "casehold": [
        (["Doe v. Roe", "A. holding that a gratuitous promise", "E. holding that damages"], ["A"], "B"),
        (["Poe v. Moe", "C. holding that service by post"], ["C"], "E"),
    ],
    "lexglue_unfair_tos": [
        (["end your account"], ["yes"], "no"),
        (["write to us by post"], ["no"], "yes"),
        (["goes to arbitration"], ["yes"], "no"),
        (["nine parts"], ["no"], "yes"),
    ],
    "lexglue_ledgar": [
        (["laws of the State of Ohio", "Governing Laws, Headings"], ["Governing Laws", "governing laws."], "Venues"),
        (["$100 a year"], ["Base Salary\nProvision"], "Benefits"),
        (["waives trial by jury"], ["Waiver of Jury Trials"], ""),
    ],
    "policyqa": [
        (["How long do you keep", "after you leave"], ["For two years.", "two years"], "forever"),
        (["Do you sell data?"], ["We never sell data"], "yes"),
        (["What do you collect?"], ["your e-mail address"], "cookies"),
    ],
    "cti_mcq": [(["stolen password", "B. a second factor"], ["B"], "A"), (["honeypot", "D. It draws"], ["D"], "C")],
    "cti_rcm": [
        (["past the end of a buffer"], ["CWE-787", "It is cwe-787, out of bounds, not CWE-79."], "CWE-79"),
        (["without escaping"], ["CWE-79: XSS"], "none"),
    ],
    "cybermetric": [
        (["port does HTTPS", "A. 21\nB. 25\nC. 443\nD. 53"], ["C"], "A"),
        (["hash function"], ["A"], "D"),
    ],
    "seceval": [(["use TLS only", "A: Accept\nB: HSTS"], ["B"], "A"), (["do with passwords"], ["D"], "C")],
}  # fmt: skip


def read(path: Path) -> dict[str, Any]:
    """Read a harness file without importing the functions that it names."""
    from lm_eval.tasks._yaml_loader import load_yaml

    return dict(load_yaml(path, resolve_func=False))


@pytest.fixture(scope="session")
def redirected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with each task of ours as `fixture_<task>` over its local file, and a group of two."""
    folder = tmp_path_factory.mktemp("redirected")
    for name, path in OWN.items():
        task = read(path)
        change: dict[str, Any] = {
            "include": str(path),
            "task": f"fixture_{name}",
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {
                "data_files": {task["test_split"]: str(FIXTURES / f"{name}.jsonl")},
                "cache_dir": str(folder / "cache"),
            },
        }
        if "generation_kwargs" in task:
            change["generation_kwargs"] = {**task["generation_kwargs"], "max_gen_toks": 4}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(change))
    group = {"group": "fixture_group", "task": ["fixture_cybermetric", "fixture_tatqa"], "metadata": {"version": 1}}
    (folder / "benchmarks.yaml").write_text(yaml.safe_dump(group))
    return folder


@pytest.fixture(scope="session")
def local(redirected: Path) -> Any:
    """Return the index of the redirected tasks alone, which is built at once."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(redirected), include_defaults=False)


@pytest.fixture(scope="session")
def index(redirected: Path) -> dict[str, Any]:
    """Return the harness's own index, with the redirected tasks in it; building it takes seconds."""
    with harness.quiet():
        return dict(extra.task_manager((redirected,)).task_index)


def make_examinee(replies: list[str]) -> Any:
    """Return a model for the harness that knows its replies, and finds the choice that is the reply likeliest."""
    from lm_eval.api.model import LM

    class Examinee(LM):  # type: ignore[misc]  # the harness ships no types
        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            return [(-float(request.args[1].strip() != replies[request.doc_id]), False) for request in requests]

        def generate_until(self, requests: list[Any]) -> list[str]:
            return [f" {replies[request.doc_id]}" for request in requests]

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            raise AssertionError("no task of ours reads texts")

    return Examinee()


def examine(local: Any, name: str, replies: list[str]) -> tuple[list[float], list[dict[str, Any]]]:
    """Return all metrics of a redirected task for some replies, and the harness's log in the order of the rows."""
    task = f"fixture_{name}"
    with harness.quiet():
        results = harness.evaluate(make_examinee(replies), extra.load([task], manager=local), chat=False)
    numbers = [value for key, value in results["results"][task].items() if "," in key and "stderr" not in key]
    assert all(isinstance(number, float | int) for number in numbers)
    return numbers, sorted(results["samples"][task], key=lambda sample: int(sample["doc_id"]))


def test_every_task_of_ours_has_a_version_a_local_file_and_expected_replies() -> None:
    assert set(OWN) == set(EXPECTED) == {path.stem for path in FIXTURES.glob("*.jsonl")}
    for name, path in OWN.items():
        task = read(path)
        assert task["task"] == name
        assert isinstance(task["metadata"]["version"], int)
        assert task["num_fewshot"] == 0
        assert path.read_text().startswith("# "), "a comment says where the data come from, the licence, the evidence"
        assert len((FIXTURES / f"{name}.jsonl").read_text().splitlines()) in (2, 3, 4)


@pytest.mark.parametrize("name", OWN)
def test_prompts_hold_the_question_and_right_replies_score(name: str, local: Any) -> None:
    numbers, samples = examine(local, name, [right[0] for _, right, _ in EXPECTED[name]])
    assert numbers
    assert numbers == [1.0] * len(numbers)
    assert len(samples) == len(EXPECTED[name])
    for sample, (words, right, _) in zip(samples, EXPECTED[name], strict=True):
        prompt = sample["arguments"][0][0]
        assert all(word in prompt for word in words), prompt
        assert not re.search(r"\{[{%]|[%}]\}|\b(?:None|undefined)\b|\\n", prompt), "an unrendered template"
        assert prompt == prompt.strip()
        if len(sample["arguments"]) > 1:
            choices = [choice for _, choice in sample["arguments"]]
            assert f" {right[0]}" in choices
            assert len(set(choices)) == len(choices)


@pytest.mark.parametrize("name", OWN)
def test_wrong_replies_score_nothing(name: str, local: Any) -> None:
    numbers, _ = examine(local, name, [wrong for _, _, wrong in EXPECTED[name]])
    assert max(numbers) <= 0.0


@pytest.mark.parametrize("name", [name for name in OWN if any(len(right) > 1 for _, right, _ in EXPECTED[name])])
def test_other_forms_of_the_right_reply_score_as_well(name: str, local: Any) -> None:
    numbers, _ = examine(local, name, [right[-1] for _, right, _ in EXPECTED[name]])
    assert numbers == [1.0] * len(numbers)


def test_some_rows_are_left_out_by_design() -> None:
    """Only official test ids of PubMedQA, and only questions of SecEval with one right letter (see EXPECTED)."""
    ids = (OWN["pubmedqa_500"].parent / "pubmedqa_test_ids.txt").read_text().split()
    assert len(ids) == len(set(ids)) == 500
    asked = {"pubmedqa_500": 3, "seceval": 2}
    for name, count in asked.items():
        rows = [json.loads(line) for line in (FIXTURES / f"{name}.jsonl").read_text().splitlines()]
        assert len(rows) > len(EXPECTED[name]) == count


@pytest.fixture(scope="session")
def sat(checkpoint: Path, redirected: Path, index: Any, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Return what a tiny random model makes of all tasks of ours, by the same way as in a run."""
    in_group = ("cybermetric", "tatqa")
    names = ("fixture_group", *(f"fixture_{name}" for name in OWN if name not in in_group))
    return run_exam(
        checkpoint, ExamQuestions(), EvaluateSettings(tasks=names), device="cpu",
        task_folders=(redirected,),
    )  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_a_tiny_model_sits_the_task(name: str, sat: Result) -> None:
    scores = sat.extra[f"fixture_{name}"]
    assert scores
    assert all(-1.0 <= score <= 1.0 for score in scores.values())
    assert sat.tasks[f"fixture_{name}"] == {"version": 1, "asked": "chat", "shots": 0}


def leaves(index: dict[str, Any], name: str) -> Iterator[str]:
    """Yield the tasks of a name; of a group or tag, those in it."""
    entry = index[name]
    members = (entry.cfg or {}).get("task")
    if entry.kind.name == "TAG":
        yield from (leaf for member in entry.tags for leaf in leaves(index, member))
    elif isinstance(members, list):
        for member in members:
            yield from leaves(index, member if isinstance(member, str) else member["task"])
    else:
        yield name


def refused(index: dict[str, Any], name: str) -> bool:
    """Whether a name, or a task in it, is known not to load with datasets 5."""
    return bool(REFUSED_NAMES.fullmatch(name)) or any(
        REFUSED_NAMES.fullmatch(leaf) or (index[leaf].cfg or {}).get("dataset_path") in REFUSED_DATA
        for leaf in leaves(index, name)
    )


# Gated, non-commercial, or without a licence: there to be asked for by name.
OFF_BY_DEFAULT = {
    "finance": {"fpb", "fiqa_sa"},
    "cybersecurity": {"cti_mcq", "cti_rcm", "cybermetric", "seceval"},
}


@pytest.mark.parametrize("domain", GROUPS)
def test_groups_name_only_tasks_that_exist_and_load(domain: str, index: dict[str, Any]) -> None:
    group = read(GROUPS[domain])
    own = {name for name, path in OWN.items() if path.parent == GROUPS[domain].parent}
    assert group["group"] == f"{domain}_benchmarks"
    assert isinstance(group["metadata"]["version"], int)
    assert len(set(group["task"])) == len(group["task"]) > 1
    for name in group["task"]:
        assert name in own or (name in index and not refused(index, name)), name
    assert own - set(group["task"]) == OFF_BY_DEFAULT.get(domain, set())


def test_what_is_known_to_fail_would_be_noticed(index: dict[str, Any]) -> None:
    names = ("pubmedqa", "multimedqa", "logiqa", "unfair_tos", "flores", "spanish_bench_flores_es", "pile_arxiv")
    assert all(refused(index, name) for name in names if name in index)
    assert not refused(index, "mmlu")


def test_names_of_ours_override_nothing_of_the_harness(index: dict[str, Any]) -> None:
    assert not [name for name in (*OWN, *(read(path)["group"] for path in GROUPS.values())) if name in index]


def test_general_benchmarks_are_the_agreed_ones() -> None:
    names = ["mmlu", "hellaswag", "arc_challenge", "winogrande", "ifeval", "gsm8k", "wikitext"]
    assert read(GENERAL)["task"] == names


def test_the_hazard_proxy_is_said_to_be_one() -> None:
    text = GROUPS["cybersecurity"].read_text()
    assert re.search(r"wmdp_cyber is a HAZARD PROXY", text)
    assert "never select, tune or train for it" in text
