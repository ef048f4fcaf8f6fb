"""The figures: real pictures of the expected size that show what the chain has, or say that it has nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.report.chain import load_chain
from common.report.plots import _draw_curve, draw_exam, draw_loss, smooth
from common.store.artifacts import Artifact

BuildChain = Callable[..., dict[str, Artifact]]


def ink(path: Path) -> float:
    """Return the share of pixels that are not white, the title left out."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width == 1600
        return float((np.asarray(picture.convert("L"))[100:] < 250).mean())


def plain_rows(path: Path) -> int:
    """Return how far below the axes the picture reaches: the rows under the last line that spans it."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as picture:
        dark = np.asarray(picture.convert("L")) < 250
    return int(len(dark) - np.flatnonzero(dark.mean(axis=1) > 0.5)[-1])


def test_both_figures_are_drawn(build_chain: BuildChain, tmp_path: Path) -> None:
    chain = load_chain(build_chain())
    draw_loss(chain, tmp_path / "loss.png", work=tmp_path)
    draw_exam(chain, tmp_path / "exam.png", work=tmp_path)
    assert ink(tmp_path / "loss.png") > 0.02
    assert ink(tmp_path / "exam.png") > 0.02


@pytest.mark.parametrize(("losses", "side"), [([3.0, 2.0, 1.0], "top"), ([0.1, 0.2, 0.3], "bottom")])
def test_where_a_loss_ends_is_written_away_from_its_last_point(losses: list[float], side: str) -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    curve = SimpleNamespace(tokens=[100, 200, 300], loss=losses)
    _draw_curve(axes, SimpleNamespace(curve=curve, parent="base", name="cpt"))  # type: ignore[arg-type] # all that it reads
    (label,) = axes.texts
    assert label.get_text() == f"ends at {losses[-1]:.2f}"
    assert label.get_verticalalignment() == side


def test_the_home_folder_is_not_written_and_the_environment_stays(tmp_path: Path) -> None:
    """In a process of its own, because matplotlib chooses its folder once."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    code = (
        "import os, pathlib, sys\n"
        "from common.report.chain import Chain\n"
        "from common.report.plots import draw_exam\n"
        "target, work = map(pathlib.Path, sys.argv[1:])\n"
        "draw_exam(Chain((), 'none', {}), target, work=work)\n"
        "assert 'MPLCONFIGDIR' not in os.environ\n"
    )
    root = str(Path(__file__).parents[2])
    env = {"HOME": str(home), "PYTHONPATH": root, "PATH": os.environ["PATH"]}
    arguments = [sys.executable, "-c", code, str(tmp_path / "exam.png"), str(work)]
    done = subprocess.run(arguments, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(home.iterdir()) == []
    assert [path.suffix for path in work.iterdir()] == [".json"]  # the list of fonts


def test_a_chain_without_a_log_or_an_exam_says_so(build_chain: BuildChain, tmp_path: Path) -> None:
    inputs = build_chain({"base": (50, 16)})
    (inputs["base"].path / "log.jsonl").unlink()
    chain = load_chain({"base": inputs["base"]})
    draw_loss(chain, tmp_path / "loss.png", work=tmp_path)
    draw_exam(chain, tmp_path / "exam.png", work=tmp_path)
    assert 0 < ink(tmp_path / "loss.png") < 0.02
    assert 0 < ink(tmp_path / "exam.png") < 0.02


def test_long_names_are_turned_and_stay_inside_the_picture(build_chain: BuildChain, tmp_path: Path) -> None:
    from dataclasses import replace

    chain = load_chain(build_chain({"base": (50, 16), "cpt": (40, 38), "sft": (33, 50)}))
    long = [replace(c, name=f"{c.name}-{'x' * 40}", parent=None) for c in chain.checkpoints]
    draw_exam(chain, tmp_path / "short.png", work=tmp_path)
    draw_exam(replace(chain, checkpoints=tuple(long)), tmp_path / "long.png", work=tmp_path)
    assert plain_rows(tmp_path / "short.png") < plain_rows(tmp_path / "long.png")


def test_equal_chains_give_equal_bytes(build_chain: BuildChain, tmp_path: Path) -> None:
    chain = load_chain(build_chain({"base": (50, 16), "cpt": (None, 38)}))
    for name in ("a.png", "b.png"):
        draw_exam(chain, tmp_path / name, work=tmp_path)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_model_without_an_exam_has_no_place_in_its_figure(build_chain: BuildChain, tmp_path: Path) -> None:
    from dataclasses import replace

    chain = load_chain(build_chain({"base": (50, 16), "cpt": (None, 38)}))
    grown = replace(chain.checkpoints[0], name="expand", exam={})
    for name, one in (("a.png", chain), ("b.png", replace(chain, checkpoints=(*chain.checkpoints, grown)))):
        draw_exam(one, tmp_path / name, work=tmp_path)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_chance_is_the_mean_of_one_over_the_number_of_choices(build_chain: BuildChain) -> None:
    inputs = build_chain({"base": (None, 16)})
    path = inputs["exam-base"].path / "records.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert load_chain(inputs).chance("domain") == 0.25
    for record in records[:30]:
        record["scores"] = [0.0, 0.0]
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    assert load_chain(inputs).chance("domain") == pytest.approx((30 * 0.5 + 30 * 0.25) / 60)
    assert load_chain(inputs).chance("general") is None


def test_smoothing_keeps_a_constant_and_the_first_value() -> None:
    assert smooth([2.0] * 9, 4) == [2.0] * 9
    smoothed = smooth([9.0, 1.0, 2.0, 3.0, 4.0, 5.0], 4)
    assert smoothed == [9.0, 4.0, 3.8, 3.0, 3.5, 4.0]
