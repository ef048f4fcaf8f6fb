"""What cannot fit is refused, and the setting that the message names fits when it is given."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.config.resolve import resolve
from common.cost import fixes, hardware, limits, outlook
from common.cost.fixes import possible_fixes
from common.cost.hardware import GPUS, gpu_called, hardware_of
from common.cost.limits import check_fits, uncertain
from common.cost.outlook import Outlook
from common.errors import ConfigError
from common.machine import Card, card_of, main_memory
from common.store.artifacts import Store
from tests.conftest import REPOSITORY
from tests.cost.conftest import outlook_of, run_of

TRAINED = ["cpt"]


def refusal(model: str, gpu: str, stages: list[str], **words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check_fits(outlook_of(model, gpu, **words), stages)
    return str(caught.value)


@pytest.mark.parametrize(
    ("model", "gpu", "words", "expected"),
    [
        ("qwen3-0.6b", "rtx-4090", {"run.micro_batch_tokens": "65536"}, r"run\.micro_batch_tokens=\d+"),
        (
            "qwen3-0.6b", "l4",
            {"run.micro_batch_tokens": "4096", "cpt.train.gradient_checkpointing": "false"},
            r"cpt\.train\.gradient_checkpointing=true",
        ),
        ("llama-8b", "h200", {"run.micro_batch_tokens": "4096"}, r"cpt\.train\.optim=adamw_bnb_8bit"),
        (
            "llama-8b", "h100-sxm", {"run.micro_batch_tokens": "4096", "run.processes": "8"},
            r"run\.parallelism=fsdp2",
        ),
        ("llama-8b", "h100-sxm", {"run.micro_batch_tokens": "4096"}, r"run\.processes=\d+ run\.parallelism=fsdp2"),
        ("llama-8b", "h100-sxm", {"run.micro_batch_tokens": "4096", "cpt.batch_tokens": "4096"}, r"cpt\.peft=lora, "),
        (
            "llama-8b", "rtx-4090",
            {"run.micro_batch_tokens": "4096", "cpt.batch_tokens": "4096", "cpt.peft": "lora"},
            r"cpt\.peft=qlora, which",
        ),
    ],
)  # fmt: skip
def test_the_setting_that_is_named_fits(model: str, gpu: str, words: dict[str, str], expected: str) -> None:
    said = refusal(model, gpu, TRAINED, **words)
    head = (
        rf"Stage cpt needs at least \d+\.\d GiB for train, and of the \d+\.\d GiB of a GPU \({gpu}\) a process "
        r"can have \d+\.\d GiB\. It fits with "
    )
    assert re.match(head + expected, said)
    advice = said.partition("It fits with ")[2].partition(",")[0].rstrip(".")
    more = dict(word.split("=") for word in advice.split())
    check_fits(outlook_of(model, gpu, **{**words, **more}), TRAINED)


def test_no_more_processes_are_named_than_this_machine_has_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixes, "cards", lambda: (Card("NVIDIA H100 80GB HBM3", "GPU-aa", 80 * 2**30, 9.0),) * 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    outlook = outlook_of("llama-8b", "h100-sxm", **{"run.micro_batch_tokens": "4096"})
    here = dataclasses.replace(outlook, hardware=dataclasses.replace(outlook.hardware, here=True))
    words = [fix.setting for fix in possible_fixes(here, "cpt") if fix.key == "processes"]
    assert words == ["run.processes=2 run.parallelism=fsdp2"]
    assert len([fix for fix in possible_fixes(outlook, "cpt") if fix.key == "processes"]) > 1


def test_the_largest_profile_fits_the_machines_that_it_names() -> None:
    resolved = resolve(
        {"domain": "medical", "profile": "qwen2.5-72b", "run.hardware": "h100-sxm", "data": "embedded"}, REPOSITORY
    )
    found = Outlook.of(resolved)
    check_fits(found, ["cpt", "sft", "dpo", "exam-base"])  # its exam lies in main memory in part
    assert found.phases("cpt")["train"].device_total < resolved.config.needs.gpu_memory_gb * hardware.GIB


def test_several_settings_are_named_where_none_does_alone_and_none_for_nothing() -> None:
    words = {"run.micro_batch_tokens": "8192", "cpt.batch_tokens": "8192"}
    said = refusal("llama-8b", "a10", TRAINED, **words, **{"cpt.adapter.lora.modules_to_save": "[embed_tokens]"})
    advice = said.partition("It fits with ")[2].partition(",")[0]
    more = dict(word.split("=") for word in advice.split())
    assert len(more) > 1
    check_fits(
        outlook_of("llama-8b", "a10", **{**words, **more, "cpt.adapter.lora.modules_to_save": "[embed_tokens]"}),
        TRAINED,
    )
    for word in more:
        rest = {key: value for key, value in more.items() if key != word}
        refusal("llama-8b", "a10", TRAINED, **{**words, **rest, "cpt.adapter.lora.modules_to_save": "[embed_tokens]"})


def test_a_change_that_the_stage_excludes_is_not_named() -> None:
    """Added layers alone learn with all their weights, and unit rates are for the weights themselves."""
    words = {"run.micro_batch_tokens": "4096", "cpt.batch_tokens": "4096"}
    assert "peft" in refusal("llama-8b", "h100-sxm", TRAINED, **words)
    said = refusal("llama-8b", "h100-sxm", TRAINED, **words, **{"cpt.methods.unit_rates": "true"})
    assert said.startswith("Stage cpt needs at least")
    assert "peft" not in said
    grown = {"pipeline": "growth", "cpt-added.batch_tokens": "4096"}
    said = refusal("llama-8b", "rtx-4090", ["cpt-added"], **words, **grown)
    assert said.startswith("Stage cpt-added needs at least")
    assert "peft" not in said


def test_weights_that_fit_nowhere_have_no_advice() -> None:
    words = {"run.micro_batch_tokens": "4096", "cpt.batch_tokens": "4096", "dpo.peft": "qlora", "dpo.batch_pairs": "1"}
    said = refusal("llama-8b", "l4", ["dpo"], **words)
    assert said.endswith("No setting of this stage makes it fit; take more memory.")  # SFT alone takes no dpo.* words


def test_more_gpus_than_a_machine_has_are_named_with_the_machines() -> None:
    """And not an optimizer of 8 bits, which cannot work on shards."""
    words = {"profile": "qwen2.5-72b", "run.machines": "2", "run.processes": "16", "run.hardware": "h100-sxm"}
    found = Outlook.of(resolve({"domain": "medical", **words}, REPOSITORY))
    with pytest.raises(ConfigError, match=r"fits with run\.processes=32 run\.parallelism=fsdp2 run\.machines=4\.$"):
        check_fits(found, ["cpt"])


def test_where_only_a_later_stage_does_not_fit_sft_alone_is_named() -> None:
    words = {"domain": "medical", "profile": "qwen3-8b-qlora", "run.hardware": "rtx-4090"}
    found = Outlook.of(resolve(words, REPOSITORY))
    with pytest.raises(ConfigError, match=r"or train with SFT alone \(pipeline=sft-only needs\.gpu_memory_gb=22\)\.$"):
        check_fits(found, ["cpt", "dpo"])
    plain = Outlook.of(resolve({**words, "pipeline": "sft-only"}, REPOSITORY))
    check_fits(plain, [node.name for node in plain.resolved.nodes])


def test_lengths_that_the_data_decide_are_a_doubt_and_no_refusal() -> None:
    found = outlook_of("qwen3-0.6b", "rtx-4090", data="hub")
    check_fits(found, ["exam-base"])
    (line,) = uncertain(found, ["exam-base", "exam-cpt"])
    assert re.fullmatch(
        r"exam-base exam-cpt: with the longest rows eval takes \d+\.\d GiB, and of the 24\.0 GiB of a GPU \(rtx-4090\) "
        r"a process can have 22\.8 GiB; "
        r"evaluate\.batch_size=\d+ fits",
        line,
    )
    size = line.partition("batch_size=")[2].split()[0]
    assert not uncertain(
        outlook_of("qwen3-0.6b", "rtx-4090", data="hub", **{"evaluate.batch_size": size}), ["exam-base"]
    )


def test_of_unknown_models_nothing_is_refused() -> None:
    words = {"domain": "medical", "model.path": "owner/name", "model.revision": "0" * 40, "run.hardware": "l4"}
    found = Outlook.of(resolve(words, REPOSITORY))
    assert found.unknown
    assert not found.phases("cpt")
    check_fits(found, ["base", "cpt", "exam-cpt"])


def test_a_cpu_s_memory_is_that_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Outlook.of(resolve({"domain": "medical", "run.device": "cpu"}, REPOSITORY))
    check_fits(found, ["cpt", "merge"])
    monkeypatch.setattr(limits, "main_memory", lambda: 2.0**29)
    with pytest.raises(
        ConfigError, match=r"Stage cpt needs at least 0\.\d GiB for train, and this machine has 0\.5 GiB\. No"
    ):
        check_fits(found, ["cpt"])


def test_a_full_disk_is_seen_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Outlook.of(resolve({"domain": "medical", "run.device": "cpu"}, REPOSITORY))
    check_fits(found, ["cpt", "merge"])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=2**30, free=2**20))
    with pytest.raises(
        ConfigError, match=r"The run needs 0\.\d GiB of disk .+ has 0\.0 GiB\. Give a folder on a larger"
    ):
        check_fits(found, ["cpt", "merge"])


def test_scratch_of_a_stopped_stage_has_its_room_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Outlook.of(resolve({"domain": "medical", "run.device": "cpu", "out": str(tmp_path)}, REPOSITORY))
    kept, scratch = found.disk("cpt")
    free = int(kept + scratch / 2)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=2**30, free=free))
    work = Store(tmp_path).work_folder("cpt", "f" * 16)
    checkpoint = work / "trainer" / "checkpoint-1"
    checkpoint.mkdir(parents=True)
    with (checkpoint / "model.safetensors").open("wb") as weights:
        weights.truncate(int(scratch * 0.6))  # bytes that are not written take no disk here
    check_fits(found, ["cpt"], {"cpt": work.name.removeprefix("cpt-")})
    with pytest.raises(ConfigError, match="GiB of disk"):
        check_fits(found, ["cpt"], {"cpt": "0" * 16})  # another run's
    with pytest.raises(ConfigError, match="GiB of disk"):
        check_fits(found, ["cpt"], {"cpt": None})


def test_hardware_goes_by_its_name() -> None:
    with pytest.raises(ConfigError, match=r"run\.hardware=h100: .+ Say h100-pcie or h100-sxm\."):
        run_and_look("h100")
    with pytest.raises(ConfigError, match=r"run\.hardware=l4 is a GPU, but run\.device=cpu"):
        outlook_of("qwen3-0.6b", "l4", **{"run.device": "cpu"})
    assert hardware_of(run_of("qwen3-0.6b", "cpu-8").config).device == "cpu"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "h100-sxm"), ("NVIDIA H100 PCIe", "h100-pcie"), ("NVIDIA L4", "l4"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"), ("NVIDIA A100-SXM4-80GB", "a100-80gb"), ("NVIDIA L40S", "l40s"),
        ("NVIDIA L40", "nvidia-l40"), ("NVIDIA RTX A1000", "nvidia-rtx-a1000"), ("NVIDIA GH200 480GB", "h200"),
    ],
)  # fmt: skip
def test_cards_go_by_whole_words(name: str, expected: str) -> None:
    card = card_of(f"GPU-aa, 23034, 8.6, {name}")
    found = gpu_called(card)
    assert (found.name, found.memory) == (expected, 23034 * 2**20)
    assert found.flops == GPUS[expected if expected in GPUS else "a10"].flops


def test_a_card_that_does_not_tell_its_memory_is_planned_for() -> None:
    assert gpu_called(card_of("GPU-aa, [N/A], 8.9, NVIDIA L4")).memory == GPUS["l4"].memory
    assert gpu_called(card_of("GPU-aa, [N/A], 8.9, NVIDIA GB10")).memory == main_memory()


def run_and_look(gpu: str) -> Outlook:
    return outlook.Outlook.of(run_of("qwen3-0.6b", gpu))


def test_without_a_gpu_the_least_that_a_profile_needs_is_planned_for() -> None:
    words = {"domain": "medical", "needs.device": "cuda", "needs.gpu_memory_gb": "40"}
    found = hardware_of(resolve(words, REPOSITORY).config)
    assert (found.name, found.here, found.assumed) == ("a100-40gb", False, "there is no GPU here")
