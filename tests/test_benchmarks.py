"""The benchmarks' arithmetic, their arguments, and one of them for real without its peer."""

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = ["dpo", "ppo", "rloo_grpo", "trainers", "passes", "sweep", "scaling", "flops"]


@pytest.fixture(autouse=True)
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def module(name: str) -> Any:
    return importlib.import_module(name)


def test_a_ratio_says_how_many_times_ours_goes_into_the_peer() -> None:
    median_ratio = module("harness").median_ratio
    assert median_ratio([2.0, 4.0, 100.0], [8.0, 8.0, 1.0]) == {"ours": 4.0, "peer": 8.0, "ratio": 2.0}
    assert median_ratio([2.0], []) == {"ours": 2.0}


def test_seconds_are_between_the_ends_of_steps_or_iterations() -> None:
    harness = module("harness")
    marks = {"steps": [10.0, 11.0, 13.0, 16.0, 20.0, 25.0]}
    assert harness.mean_steps([marks, marks]) == [3.0, 3.0]
    assert harness.mean_steps([marks], iterations=3) == [7.0]  # from the 2nd step to the 6th, two iterations
    assert harness.mean_steps([marks], iterations=2) == [12.0]


def test_curves_differ_by_their_worst_point() -> None:
    difference = module("harness").relative_difference
    assert difference([1.0, 2.2], [1.0, 2.0]) == pytest.approx(0.1)
    assert difference([1.0], [1.0, 2.0]) == math.inf


def test_the_reward_at_a_kl_lies_between_two_iterations() -> None:
    reward_at = module("harness").reward_at
    curve = [(0.0, 1.0), (2.0, 3.0), (4.0, 3.5)]
    assert reward_at(curve, 1.0) == 2.0
    assert reward_at(curve, 3.0) == 3.25
    assert reward_at(curve, 9.0) == 3.5  # beyond the last it is the last's


def test_needed_products_are_those_of_an_enumeration() -> None:
    prompt, completions, trunk, head, layers, width = 3, [2, 4], 11, 7, 5, 13
    visible = 0
    for completion, length in [(0, 0), *enumerate(completions, 1)]:
        positions = range(prompt) if not completion else range(prompt, prompt + length)
        visible += sum(position + 1 for position in positions)  # the prompt, its own completion, itself
    forward = 2 * trunk * 9 + 2 * head * 6 + 2 * 2 * layers * width * visible
    assert module("flops").pair_flops(prompt, completions, trunk, head, layers, width) == 3 * forward


def test_the_time_of_forward_and_backward_leaves_out_the_optimiser() -> None:
    run = {"gradients": [1.0, 5.0, 9.0], "steps": [2.0, 6.5, 10.0]}
    assert module("flops").forward_backward(run) == [3.0, 2.5]


def test_rows_are_drawn_from_a_seed_and_no_longer_than_the_models() -> None:
    world = module("world")
    rows = world.pairs("ultrafeedback", 300)
    assert rows == world.pairs("ultrafeedback", 300)
    assert len({row["prompt"] for row in rows}) == 300
    assert max(len((row["prompt"] + row[side]).split()) for row in rows for side in ("chosen", "rejected")) < 512


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_has_a_quick_form(script: str) -> None:
    options = module(script).arguments(["--quick", "--device", "cpu"]).options
    assert options.model == ["small"] and options.precision == ["fp32"] and options.repeat == 1


def test_one_case_runs_and_is_skipped_when_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    harness, dpo = module("harness"), module("dpo")
    arguments = ["--quick", "--no-peer", "--out", str(tmp_path)]
    harness.work(dpo.arguments(arguments), dpo.measure_all)
    (path,) = (tmp_path / "cpu").iterdir()
    result = json.loads(path.read_text())
    assert result["summary"]["step"]["ours"] > 0 and "ratio" not in result["summary"]["step"]
    assert {"processor", "amx_bf16", "torch"} <= set(result["hardware"]) and result["setting"]["quick"]
    run = result["runs"]["ours"][0]
    assert len(run["steps"]) == len(run["losses"]) == 2 and run["losses"][0] == pytest.approx(math.log(2), abs=1e-4)
    bench = dpo.arguments(["--no-peer", "--out", str(tmp_path)])
    bench.case(result["name"], lambda folder: pytest.fail("measured again"))
    assert "--again" in capsys.readouterr().out


def test_the_figures_table_has_a_row_for_each_measure(tmp_path: Path) -> None:
    figure = module("figure")
    folder = tmp_path / "results/cpu"
    folder.mkdir(parents=True)
    for precision, seconds in (("bf16", 4.0), ("fp32", 6.0)):
        step = {"ours": 2.0, "peer": seconds, "ratio": seconds / 2}
        summary = {"step": step, "peak_mb": {"ours": 1500.0}, "share": 0.5}
        (folder / f"dpo-a-{precision}.json").write_text(
            json.dumps({"script": "dpo", "name": f"a-{precision}", "summary": summary})
        )
    assert figure.markdown(figure.rows(folder)).splitlines()[2:] == [
        "| dpo a-bf16 | step | 2 | 4 | 2.00× | 2.00× |",
        "| dpo a-bf16 | peak_mb | 1,500 | – | – | – |",
        "| dpo a-fp32 | step | 2 | 6 | 3.00× | 2.00× |",  # TRL is faster in bf16
        "| dpo a-fp32 | peak_mb | 1,500 | – | – | – |",
    ]
    figure.main(tmp_path / "results", tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_a_peak_is_of_the_process_and_not_of_what_started_it() -> None:
    code = "import json, marks; x = bytearray(200 << 20); print(json.dumps({'peak_bytes': marks.peak_bytes()}))"
    mine = bytearray(600 << 20)
    done = subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True, check=True)
    assert 200 << 20 < json.loads(done.stdout)["peak_bytes"] < len(mine)
