"""What a plan shows: memory, time, disk and price, in 100 columns, and without a heavy library."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from common.cli import output
from common.cli.main import main
from common.cli.plan_costs import memory_of, totals
from common.config.resolve import resolve
from common.console import Console
from common.cost import hardware
from common.cost.activations import TRL_PIECE
from common.cost.disk import CHECKPOINTS
from common.cost.outlook import Outlook
from common.cost.speed import GGUF_TOKEN
from common.engine.plan import Plan, make_plan
from common.store.artifacts import write_json
from tests.conftest import QUICK, REPOSITORY
from tests.cost.conftest import outlook_of, run_of
from tests.models.test_gguf_file import write_gguf

SMALL = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 4096,
}  # fmt: skip
EIGHT = {"run.processes": "8", "run.parallelism": "fsdp2", "run.micro_batch_tokens": "8192"}


def planned(tmp_path: Path, **words: str) -> Plan:
    return make_plan(run_of("llama-8b", "h100-sxm", out=str(tmp_path), **EIGHT, **words))


def test_a_plan_shows_all_that_a_stage_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = planned(tmp_path, **{"run.gpu_hour_price": "2.5"})
    output.plan(made, Console())
    shown = capsys.readouterr().out
    assert re.search(r"cpt +waits +1,000,000 +train \d+\.\d, save \d+\.\d host +\d+ s +after base", shown)
    assert re.search(r"exam-cpt +waits +eval <?\d+\.\d +\d+ s", shown)
    assert re.search(r"merge +waits +merge \d+\.\d host", shown)
    assert "of each 8 x h100-sxm, fsdp2" in shown
    table = [line for line in shown.splitlines() if line.startswith("  ")]
    assert max(map(len, table)) <= 100
    known = sum(step.seconds for step in made.to_do if step.seconds is not None)
    price = made.outlook.price(known)
    assert price == pytest.approx(2.5 * 8 * known / 3600)
    assert f"about {price:,.2f} for GPUs" in shown
    assert re.search(r"dpo +waits +~\d+k ", shown)


def test_labels_that_are_not_known_are_no_exam_on_the_hub(tmp_path: Path) -> None:
    words = {"domain": "medical", "profile": "tiny", "pipeline": "pcp", "out": str(tmp_path)}
    shown = "\n".join(totals(make_plan(resolve(words, REPOSITORY))))
    assert re.search(r"Stage label finds its labels in its prompts: 4 for each of \d+ are assumed\.", shown)
    assert "on the Hub" not in shown
    named = "\n".join(totals(make_plan(resolve(words | {"label.words": "[a, b]"}, REPOSITORY))))
    assert "assumed" not in named


def test_there_is_no_price_without_one_or_on_a_cpu(tmp_path: Path) -> None:
    assert "for GPUs" not in totals(planned(tmp_path))[0]
    assert outlook_of("llama-8b", "cpu-8", **{"run.gpu_hour_price": "2"}).price(3600) is None
    assert outlook_of("llama-8b", "l4", **{"run.gpu_hour_price": "2"}).price(3600) == 2


def test_disk_holds_every_result_and_the_largest_scratch() -> None:
    found = outlook_of("llama-8b", "h100-sxm", **{"sft.peft": "lora", "model.dtype": "bfloat16"})
    parameters = 8_030_261_248
    assert found.disk("cpt") == (2 * parameters, CHECKPOINTS * 12 * parameters)
    kept, scratch = found.disk("sft")
    adapter = 32 * 16 * (2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 14_336))  # rank 16, q o, k v, the rest
    assert (kept, scratch) == (2 * parameters + 4 * adapter, CHECKPOINTS * 12 * adapter)
    assert found.disk("exam-cpt") == found.disk("card") == (0.0, 0.0)


def test_the_size_of_trl_s_pieces_is_planned_with() -> None:
    """A private number, which planning cannot import: TRL takes seconds to load."""
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

    assert _CHUNKED_LOGPROB_CHUNK_SIZE == TRL_PIECE


def test_plan_and_run_refuse_what_cannot_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU too small for the libraries, so that a run that is not refused is at least a small one."""
    monkeypatch.setitem(hardware.TABLE, "l4", dataclasses.replace(hardware.GPUS["l4"], memory=2**29))
    words = {**QUICK, "out": str(tmp_path), "run.hardware": "l4", "run.verbosity": "normal"}
    given = [f"{key}={value}" for key, value in words.items()]
    for command in ("plan", "run"):
        assert main([command, "domain=medical", *given]) == 1
        said = capsys.readouterr()
        assert re.search(
            r"error: Stage base needs at least 0\.\d GiB for train, and of the 0\.5 GiB of a GPU \(l4\)", said.err
        )
        assert ("peak memory" in said.out) == (command == "plan")
    assert not (tmp_path / "artifacts").exists()
    assert main(["plan", "domain=all", *given]) == 1
    assert re.search(r"6 domains cannot run:\n.+Stage base needs", capsys.readouterr().err)


def test_hardware_that_is_misspelt_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "domain=medical", "run.hardware=h2000"]) == 1
    assert "has no such machine. Say h200." in capsys.readouterr().err
    assert main(["plan", "domain=medical", "run.hardware=cpu-12"]) == 1
    assert "Say cpu-<cores> or cpu-<kind>-<cores> with 2, 4, 8," in capsys.readouterr().err
    assert main(["plan", "domain=medical", "run.hardware=tpu"]) == 1
    assert "Known: t4, v100-16gb, v100-32gb, rtx-3090" in capsys.readouterr().err
    assert outlook_of("qwen3-0.6b", "H100-SXM").hardware.name == "h100-sxm"


@pytest.mark.parametrize(
    "words",
    [
        ["run.hardware=h100-sxm", "run.gpu_hour_price=2", "model.architecture.hidden_size=256"],
        ["data=hub", "profile=qwen3-0.6b"],
        ["data={folder}/data.yaml", "model.path={folder}"],
    ],
    ids=["embedded", "hub", "local files and checkpoint"],
)
def test_planning_imports_nothing_heavy(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "notes.txt").write_text("A paragraph of medicine.\n" * 20, encoding="utf-8")
    sources: list[dict[str, Any]] = [
        {"id": role, "role": role, "path": "notes.txt", "licence": "mit"} for role in ("pretrain", "cpt")
    ]
    pair = {"prompt": "q", "chosen": "c", "rejected": "r"}
    (tmp_path / "rows.jsonl").write_text('{"q": "Why?", "a": "Because.", "c": "Yes.", "r": "No."}\n', encoding="utf-8")
    more = {"path": "rows.jsonl", "licence": "mit"}
    sources.append({"id": "sft", "role": "sft", "columns": {"question": "q", "answer": "a"}, **more})
    sources.append({"id": "pairs", "role": "preference", "columns": pair, **more})
    write_json(tmp_path / "data.yaml", {"title": "Notes", "sources": sources})
    write_json(tmp_path / "config.json", {"model_type": "llama", "vocab_size": 300, **SMALL})
    save_file({"lm_head.weight": torch.zeros(300, 64)}, tmp_path / "model.safetensors")
    words = [f"out={tmp_path}", "domain=medical", *(word.format(folder=tmp_path) for word in words)]
    code = (
        "import sys; from common.cli.main import main; "
        f"code = main(['plan', *{words!r}]); "
        "heavy = {'torch', 'transformers', 'trl', 'accelerate', 'datasets', 'numpy', 'pyarrow'}; "
        "heavy &= set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "peak memory" in done.stdout


def test_an_exam_that_no_gpu_has_room_for_shows_where_its_weights_lie() -> None:
    words = {"domain": "medical", "profile": "qwen2.5-72b", "run.hardware": "h100-sxm"}
    found = Outlook.of(resolve(words, REPOSITORY))
    shown = memory_of(found, "exam-base")
    assert re.fullmatch(r"eval 71\.\d and 74\.\d host", shown)  # 0.8 of a GPU's memory is for weights
    larger = Outlook.of(resolve({**words, "run.hardware": "b200"}, REPOSITORY))  # which holds them
    assert (found.seconds("exam-base", None) or 0) > 5 * (larger.seconds("exam-base", None) or 0)
    roomy = Outlook.of(resolve({**words, "profile": "qwen3-0.6b"}, REPOSITORY))
    assert re.fullmatch(r"eval <?\d\.\d", memory_of(roomy, "exam-base"))


def test_unpacking_a_gguf_file_is_priced(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf")
    save_file({"lm_head.weight": torch.zeros(300, 64)}, tmp_path / "model.safetensors")
    write_json(tmp_path / "config.json", {"model_type": "llama", "vocab_size": 300, **SMALL})
    words = {"domain": "medical", "model.licence": "mit"}
    places = (tmp_path / "model.gguf", tmp_path)
    packed, plain = (Outlook.of(resolve({**words, "model.path": str(place)}, REPOSITORY)) for place in places)
    vocabulary = packed.settings["base"].shape.vocabulary
    more = (packed.seconds("base", None) or 0) - (plain.seconds("base", None) or 0)
    assert more == pytest.approx(GGUF_TOKEN * vocabulary, rel=0.05)
