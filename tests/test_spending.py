"""What runs took, in tables and figures: sums over the right stages, metrics like any other, curves that begin late."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from prefsweep.jobs.job import Job, plan_of
from prefsweep.jobs.run import RunFile, method_stages
from prefsweep.pipeline.cost import COUNTS, TRACE
from prefsweep.report import report
from prefsweep.report.curves import efficiency, points_of
from prefsweep.report.formatting import decimals_for, number
from prefsweep.report.metrics import metric
from prefsweep.report.runs import read_runs, records
from prefsweep.report.table import default_metrics, table
from prefsweep.report.versus import versus
from recorded import write_run

# ------------------------------------------------------------------------------------------------------------ run.json


def job_of(config: Any) -> Job:
    return Job([], config, plan_of(config))


@pytest.mark.parametrize(
    ("method", "between"),
    [
        ("base", set()),
        ("sft", {"sft"}),
        ("sft+dpo", {"sft", "reference_logps", "dpo"}),
        ("ppo", {"reward_model", "ppo"}),
        ("sft+ppo", {"sft", "reward_model", "ppo"}),
    ],
)
def test_a_methods_stages_are_those_between_base_and_result(
    method: str, between: set[str], composed: Callable[..., Any]
) -> None:
    job = job_of(composed(f"method={method}"))
    assert {stage.role for stage in job.plan.stages if stage.identity in method_stages(job)} == between


def test_a_run_adds_up_what_its_stages_cost_and_what_it_paid(composed: Callable[..., Any], tmp_path: Path) -> None:
    job = job_of(composed("method=ppo"))
    state = RunFile(job, tmp_path)
    roles = {stage.role: stage for stage in job.plan.stages}
    known = {stage.identity: stage for stage in reversed(job.plan.stages)}  # a computation in two roles is told once
    for stage in known.values():
        record = {"metrics": {}, "cost": dict.fromkeys(COUNTS, 1) | {"seconds": 2.0, "gpu_hours": 0.0}}
        notify = state.built if stage.name == "ppo" else state.reused
        notify(stage, tmp_path, record)
    totals = state.totals()
    assert {kind: total["flops"] for kind, total in totals.items()} == {"method": 2, "whole": len(known), "paid": 1}
    assert totals["method"]["seconds"] == 4.0
    del state.cost["reward_model"]
    assert set(state.totals()) == {"paid"}
    assert roles["reward_model"].identity in method_stages(job)


@pytest.mark.parametrize("method", ["sft", "dpo", "sft+dpo", "ppo", "sft+ppo"])
def test_a_method_that_learns_its_labels_in_two_stages_has_them_once(
    method: str, composed: Callable[..., Any], tmp_path: Path
) -> None:
    job = job_of(composed(f"method={method}", "scorer@judge=trained", "dataset.share=[0,0.5]"))
    state = RunFile(job, tmp_path)
    labels = {"sft": 24, "dpo": 24, "reward_model": 20, "judge_model": 9}  # the reward's training ended early
    for stage in job.plan.stages:
        counts = dict.fromkeys(COUNTS, 0) | {"labels": labels.get(stage.name, 0)}
        state.built(stage, tmp_path, {"metrics": {}, "cost": counts | {"seconds": 1.0, "gpu_hours": 0.0}})
    totals = state.totals()
    assert totals["method"]["labels"] == (20 if method == "ppo" else 24)
    assert totals["whole"]["labels"] == totals["paid"]["labels"] == totals["method"]["labels"] + 9  # of other questions


# -------------------------------------------------------------------------------------------------------------- tables


def sweep_of(folder: Path) -> Path:
    """Base, DPO and PPO, whose labels and FLOPs differ."""
    for method, labels, flops in (("base", 0, 0), ("dpo", 100, 3e15), ("ppo", 250, 4.5e16)):
        for seed in (1, 2):
            total = {"labels": labels, "flops": flops * seed, "seconds": 60.0 * seed, "gpu_hours": 0.0}
            cost = {"seconds": 1.0, "method": total, "whole": {"flops": 9e16}, "paid": {"flops": 0}, "stages": {}}
            write_run(folder, method, seed, {"judge/mean": flops / 1e17 + seed}, cost=cost)
    return folder


def test_what_a_run_took_is_a_metric_that_is_shown_where_it_is_named(tmp_path: Path) -> None:
    runs = read_runs([sweep_of(tmp_path / "s")])
    assert default_metrics(runs) == ["judge/mean"]
    made = table(runs, ["cost/labels", "cost/flops", "cost/whole/flops", "cost/paid/flops"])
    assert made.header == ["method", "labels", "FLOPs", "FLOPs of all stages", "FLOPs paid", "runs"]
    texts = made.lines()
    assert [line[:2] for line in texts] == [["base", "0"], ["dpo", "100"], ["ppo", "250"]]
    assert texts[1][2].startswith("0.45e16 ± ") and texts[2][2].startswith("6.75e16 ± ")
    assert not any(cell.mark for row in made.rows for cell in row.cells)  # the base, which did nothing, is not the best


def test_a_table_says_how_many_labels_each_method_had(tmp_path: Path) -> None:
    runs = read_runs([sweep_of(tmp_path / "s")])
    sentence = "Preference labels a run learned from: 0 (base), 100 (dpo), 250 (ppo)."
    assert sentence in table(runs).caption
    assert "labels a run" not in table(runs, ["judge/mean", "cost/labels"]).caption  # they are a column
    assert "labels a run" not in table(runs[runs["method"] == "dpo"]).caption
    runs.loc[runs["method"] == "dpo", "cost/labels"] = [100.0, 1600.0]
    assert "0 (base), 100–1,600 (dpo), 250 (ppo)" in table(runs).caption


def test_of_two_rows_the_cheaper_wins(tmp_path: Path) -> None:
    made = table(read_runs([sweep_of(tmp_path / "s")]), ["judge/mean", "cost/labels"])
    quality, price = versus(made, ["ppo", "dpo"]).lines
    assert (quality.better, price.better) == (0, 1)


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [(123.4, 0, "123"), (1.5e6, -4, "1.50e6"), (3e15, -14, "0.30e16"), (-2e9, -7, "−2.00e9"), (0.0, -14, "0.00e16")],
)
def test_a_large_number_has_its_columns_exponent(value: float, decimals: int, text: str) -> None:
    assert number(value, decimals) == text


def test_three_digits_of_the_largest() -> None:
    assert [decimals_for([value, 1.0]) for value in (0.5, 5e2, 9.9e5, 1e6, 4.5e16)] == [2, 0, 0, -4, -14]
    assert metric("cost/unheard").kind == "cost"


# ------------------------------------------------------------------------------------------------------------- figures


def trained(folder: Path, method: str, seed: int, metric: str, watts: float | None = None) -> Path:
    """A run whose last stage validated three times, after stages that took 40 labels and 10 seconds."""
    run = write_run(folder, method, seed, {"judge/mean": float(seed)})
    record, identity = json.loads((run / "run.json").read_text()), f"{method}{seed}"
    own = {"labels": 60, "tokens_generated": 0, "flops": 3e12, "seconds": 30.0}
    total = {"labels": 100, "tokens_generated": 0, "flops": 5e12, "seconds": 40.0 + seed}
    record["stages"] = {method: identity}
    record["cost"] = {"seconds": 1.0, "method": total, "stages": {method: own}}
    record["config"]["runtime"]["outputs"] = str(folder / "outputs")
    (run / "run.json").write_text(json.dumps(record))
    stage = folder / "outputs/stages" / method / identity
    stage.mkdir(parents=True)
    steps = (1, 2, 3)
    counts = [{"cost/labels": 20 * s, "cost/tokens_generated": 0, "cost/flops": 1e12 * s} for s in steps]
    rows = [{"step": s, f"validation/{metric}": s / 10, **count} for s, count in zip(steps, counts, strict=True)]
    (stage / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [{"step": 1, "loss": 1.0}, *rows]))
    trace = [{"step": s, "seconds": 10.0 * s} for s in (1, 1, 2, 3)]  # step 1 twice: a kill came between
    trace += [{"seconds": 60.0 * at, "watts": watts} for at in steps] if watts else []
    (stage / TRACE).write_text("".join(json.dumps(row) + "\n" for row in trace))
    return run


def test_a_stage_that_learns_the_labels_of_the_one_before_adds_none_to_its_curve(tmp_path: Path) -> None:
    run = trained(tmp_path / "s", "dpo", 1, "judge")
    record = json.loads((run / "run.json").read_text())
    record["cost"]["method"]["labels"] = 60
    record["cost"]["stages"] |= {"sft": {"labels": 60}, "judge_model": {"labels": 50}}
    record["judging"] = ["judge_model"]
    (run / "run.json").write_text(json.dumps(record))
    (row,) = records(read_runs([tmp_path / "s"]))
    assert [point["x"] for point in efficiency(row) if point["xlabel"] == "labels"] == [60, 60, 60]


def test_a_curve_begins_where_the_stages_before_it_end(tmp_path: Path) -> None:
    trained(tmp_path / "s", "ppo", 1, "score")
    (run,) = records(read_runs([tmp_path / "s"]))
    points = list(efficiency(run))
    assert {point["panel"] for point in points} == {"ppo: validation score"}
    assert {
        point["xlabel"]: [each["x"] for each in points if each["xlabel"] == point["xlabel"]] for point in points
    } == {
        "labels": [60, 80, 100],
        "tokens generated": [0, 0, 0],
        "FLOPs": [3e12, 4e12, 5e12],
        "minutes": pytest.approx([21 / 60, 31 / 60, 41 / 60]),
    }
    assert [point["y"] for point in points] == [0.1, 0.2, 0.3] * 4


def judged(run: Path, cap: dict[str, object]) -> None:
    """What the stage `validate` leaves of such a run: the judge's word on each of its validations."""
    record = json.loads((run / "run.json").read_text())
    (role,) = record["stages"]
    record["config"]["stages"][role] |= {"validation_prompts": 64, **cap}
    record["stages"]["judge_validation"] = f"judged-{run.name}"
    stage = Path(record["config"]["runtime"]["outputs"]) / "stages/judge_validation" / f"judged-{run.name}"
    stage.mkdir(parents=True)
    rows = [{"step": step, "validation/judge": -float(step)} for step in (1, 2, 3)]
    (stage / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "run.json").write_text(json.dumps(record))


def test_the_judge_puts_methods_on_one_axis_where_completions_had_one_cap(tmp_path: Path) -> None:
    for method, measure, cap in (
        ("ppo", "score", {"response_tokens": [48, 48], "temperature": 1.0, "query_tokens": None}),
        ("dpo", "accuracy", {"validation_max_new_tokens": 48}),
        ("sft", "loss", {"validation_max_new_tokens": 20}),
    ):
        judged(trained(tmp_path / "s", method, 1, measure), cap)
    history = tmp_path / "s/outputs/stages/ppo/ppo1/history.jsonl"  # whose labels a reward model took before it began
    rows = [json.loads(line) for line in history.read_text().splitlines()]
    history.write_text("".join(json.dumps(row | ({"cost/labels": 60} if len(row) > 2 else {})) + "\n" for row in rows))
    points = points_of(table(read_runs([tmp_path / "s"])), efficiency)
    assert {key: sorted(part["run"].unique()) for key, part in points.groupby(["panel", "xlabel"])} == {
        (f"judge on 64 validation prompts,\nat most {cap} tokens", price): runs
        for cap, runs in (
            (20, ["gpt2-tiny_synthetic-reviews_sft_seed1"]),
            (48, [f"gpt2-tiny_synthetic-reviews_{name}_seed1" for name in ("dpo", "ppo")]),
        )
        for price in ("labels", "FLOPs", "minutes")  # not tokens generated: nobody generated any
    }
    assert set(points["y"]) == {-1, -2, -3}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"validation_prompts": 63}, "judge on 63 validation prompts,\nat most 48 tokens"),
        ({"response_tokens": [4, 16]}, "judge on 64 validation prompts,\nat most 4–16 tokens"),
        ({"query_tokens": [2, 7]}, "judge on 64 validation prompts,\nat most 48 tokens, cut to 2–7"),
        ({"temperature": 0.7}, "judge on 64 validation prompts,\nat most 48 tokens, T = 0.7"),
    ],
)
def test_who_answered_otherwise_has_a_panel_apart(tmp_path: Path, settings: dict[str, object], words: str) -> None:
    judged(trained(tmp_path / "s", "ppo", 1, "score"), {"response_tokens": [48, 48], **settings})
    (run,) = records(read_runs([tmp_path / "s"]))
    assert {point["panel"] for point in efficiency(run)} == {words}


def test_figures_are_drawn_where_their_data_is(tmp_path: Path) -> None:
    for seed in (1, 2):
        trained(tmp_path / "s", "ppo", seed, "score", watts=200.0)
        trained(tmp_path / "s", "dpo", seed, "accuracy")
    report(tmp_path / "s", Console(file=io.StringIO()))
    drawn = {path.name for path in (tmp_path / "s").glob("*.p[nd][gf]")}
    assert {f"{name}.{kind}" for name in ("cost", "efficiency", "power") for kind in ("png", "pdf")} <= drawn
    write_run(tmp_path / "old", "dpo", 1, {"judge/mean": 0.5}, cost={"seconds": 1.0, "stages": {"dpo": {"seconds": 1}}})
    report(tmp_path / "old", Console(file=io.StringIO()))
    assert not {path.stem for path in (tmp_path / "old").glob("*.png")} & {"cost", "efficiency", "power"}


def test_the_gain_per_label_is_the_judges_over_what_the_method_bought(tmp_path: Path) -> None:
    metrics = {"judge/mean": 0.6, "judge/base_mean": 0.1}
    for seed, cost in ((1, {"method": {"labels": 250}}), (2, {"method": {"labels": 0}}), (3, {})):
        write_run(tmp_path / "s", "dpo", seed, metrics, cost={"stages": {}, **cost})
    runs = read_runs([tmp_path / "s"])
    bought, *others = runs["judge/gain_per_1000_labels"]
    assert bought == pytest.approx(0.5 / 0.25) and np.isnan(others).all()
    assert "gain per 1,000 labels" not in table(runs).header
    assert "gain per 1,000 labels" in table(runs, ["judge/gain_per_1000_labels"]).header
