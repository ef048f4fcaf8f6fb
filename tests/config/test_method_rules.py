"""Methods that do not go together are refused, and a schedule method takes the place of a lower layer's block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from common.config import method_rules
from common.config.base import Schedule
from common.config.methods import Ancestor, MethodSettings, ScheduleMethod, methods
from common.config.resolve import resolve
from common.errors import ConfigError
from tests.conftest import REPOSITORY


def stages(**words: str) -> dict[str, Any]:
    return dict(
        resolve({"domain": "medical", **{k.replace("__", "."): v for k, v in words.items()}}, REPOSITORY).config.stages
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            {"cpt.schedule.kind": "wsd"},
            r"cpt\.schedule \(command line\) is set next to cpt\.methods\.infinite, which is",
        ),
        ({"cpt.train.lr_scheduler_type": "cosine"}, r"cpt\.schedule .* is set next to cpt\.methods\.infinite"),
        ({"cpt.methods.infinite.floor": "0.9"}, r"cpt\.methods\.infinite: floor 0\.9 is above the constant rate 0\.5"),
        ({"cpt.packing": "trl", "cpt.methods.subset": "true"}, r"cpt\.methods\.subset needs rows that are packed here"),
        ({"base.methods.self_distillation": "true"}, r"compares with the stage before, and base begins the chain"),
        (
            {"cpt.methods.self_distillation": "true", "cpt.train.loss_type": "dft"},
            r"goes with the plain loss of the next token\. Leave cpt\.train\.loss_type out",
        ),
        (
            {"cpt.methods.self_distillation.top_k": "8", "cpt.methods.self_distillation.temperature": "2"},
            r"^cpt\.methods\.self_distillation: top_k=8 with temperature=2: .* Leave one of them out\.$",
        ),
        (
            {"cpt.methods.self_distillation.top_k": "8", "cpt.methods.logit_swap": "true"},
            r"^cpt\.methods\.self_distillation\.top_k spares nothing next to logit_swap, for which .* beside anyway",
        ),
        (
            {"cpt.methods.self_distillation.top_k": "8", "cpt.methods.logit_swap.top_k": "8"},
            r"^cpt\.methods\.\w+\.top_k next to that of \w+: what the stage before leaves is for one of them",
        ),
        (
            {"cpt.methods.logit_swap.top_k": "8", "cpt.methods.length_curriculum": "true"},
            r"^cpt\.methods\.logit_swap: top_k=8 next to length_curriculum: the teacher reads each row once",
        ),
        (
            {"cpt.methods.self_distillation.top_k": "8", "cpt.methods.length_curriculum": "true"},
            r"^cpt\.methods\.self_distillation: top_k=8 next to length_curriculum: the teacher reads each row once",
        ),
        (
            {"cpt.methods.self_distillation.top_k": "0"},
            r"cpt\.methods\.self_distillation\.top_k .*at least 1; got 0",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(words: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve({"domain": "medical", "cpt.methods.infinite.warmup": "0.1", **words}, REPOSITORY)


def test_two_schedules_or_two_that_exclude_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    known = methods()
    other = replace(known["infinite"], name="reptile")
    monkeypatch.setattr(method_rules, "chosen", lambda _: [(m, m.settings()) for m in (known["infinite"], other)])
    with pytest.raises(ConfigError, match=r"infinite and reptile are both learning-rate schedules; keep one"):
        stages(cpt__methods__infinite="true")
    apart = replace(known["reptile"], excludes=("self_distillation",))
    monkeypatch.setattr(
        method_rules, "chosen", lambda _: [(m, m.settings()) for m in (apart, known["self_distillation"])]
    )
    with pytest.raises(ConfigError, match=r"reptile and self_distillation cannot be on together; keep one"):
        stages(cpt__methods__reptile="true")


def test_a_schedule_method_takes_the_place_of_what_lower_layers_say() -> None:
    assert stages()["cpt"].schedule != Schedule()  # of the profile
    resolved = resolve({"domain": "medical", "cpt.methods.infinite": "true"}, REPOSITORY)
    on: Any = resolved.config.stages["cpt"]
    assert on.schedule == Schedule()
    assert not [key for key in resolved.origins if key.startswith("cpt.schedule")]
    assert any(key.startswith("sft.schedule") for key in resolved.origins)


def test_a_base_that_is_taken_trains_with_no_method() -> None:
    words = {"base.methods.reptile": "true", "model.path": "owner/name", "model.revision": "0" * 40}
    resolved: Any = resolve({"domain": "medical", "data": "embedded", **words}, REPOSITORY)
    assert resolved.config.stages["base"].methods == {}


class FilledSettings(MethodSettings):
    peak: float | None = None


def test_what_a_method_takes_from_the_stages_before_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def complete(own: FilledSettings, before: Sequence[Ancestor]) -> FilledSettings:
        seen.append([ancestor.node.name for ancestor in before])
        if before[0].node.name == "cpt":
            raise ValueError("no stage before it says it.")
        return FilledSettings(peak=0.25)

    method = ScheduleMethod(
        name="infinite", settings=FilledSettings, phrase="x", paper="y", multiplier=lambda *_: 1.0, complete=complete
    )
    monkeypatch.setattr(
        method_rules, "chosen", lambda s: [(method, FilledSettings())] if "infinite" in s.methods else []
    )
    resolved: Any = resolve({"domain": "medical", "cpt.methods.infinite": "true"}, REPOSITORY)
    assert resolved.config.stages["cpt"].methods == {"infinite": {"peak": 0.25}}
    assert resolved.origins["cpt.methods.infinite.peak"] == "the stages before it"
    assert seen == [["base"]]
    with pytest.raises(ConfigError, match=r"^sft\.methods\.infinite: no stage before it says it\.$"):
        resolve({"domain": "medical", "sft.methods.infinite": "true", "sft-only.methods": "[]"}, REPOSITORY)


PHASES = "[{until: 0.8, replay: 0.05}, {until: 1, replay: 0.5}]"  # 0.14 of all steps


def test_replay_beside_phases_that_say_it_is_refused_and_else_comes_from_them() -> None:
    words = {"domain": "medical", "cpt.mixture.phases": PHASES}
    resolved: Any = resolve(words, REPOSITORY)
    assert resolved.config.stages["cpt"].replay == 0.14  # and not that of a lower layer
    assert resolved.origins["cpt.replay"] == "cpt.mixture.phases"
    assert resolve({**words, "cpt.replay": "0.14"}, REPOSITORY).config.stages["cpt"] == resolved.config.stages["cpt"]
    message = r"^cpt\.replay=0\.3 \(command line\) is set next to cpt\.mixture\.phases, whose shares of replay make"
    with pytest.raises(ConfigError, match=message):
        resolve({**words, "cpt.replay": "0.3"}, REPOSITORY)
