"""What runs took, in tables and figures: sums over the right stages, metrics like any other, curves that begin late."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console

from prefsweep.jobs.job import Job, plan_of
from prefsweep.jobs.run import RunFile, method_stages
from prefsweep.pipeline.cost import COUNTS, TRACE
from prefsweep.report import efficiency, report
from prefsweep.report.columns import decimals_for, heading, number
from prefsweep.report.efficiency import read_curve
from prefsweep.report.frame import read_runs
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
        ("sft+dpo", {"sft", "reference", "dpo"}),
        ("ppo", {"reward", "ppo"}),
        ("sft+ppo", {"sft", "reward", "ppo"}),
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
        record = {"cost": dict.fromkeys(COUNTS, 1) | {"seconds": 2.0, "gpu_hours": 0.0}}
        state.note(stage, record, paid=stage.name == "ppo")
    found = state.totals()
    assert {kind: total["flops"] for kind, total in found.items()} == {"method": 2, "whole": len(known), "paid": 1}
    assert found["method"]["seconds"] == 4.0
    del state.cost["reward"]
    assert set(state.totals()) == {"paid"}
    assert roles["reward"].identity in method_stages(job)


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
    assert default_metrics(runs) == ("judge/mean",)
    made = table(runs, ["cost/labels", "cost/flops", "cost/whole/flops", "cost/paid/flops"])
    assert made.header == ["method", "labels", "FLOPs", "FLOPs of all stages", "FLOPs paid", "runs"]
    texts = made.texts()
    assert [line[:2] for line in texts] == [["base", "0 ± 0"], ["dpo", "100 ± 0"], ["ppo", "250 ± 0"]]
    assert texts[1][2].startswith("0.45e16 ± ") and texts[2][2].startswith("6.75e16 ± ")
    assert all(mark.best is None for mark in made.marks)  # the base, which did nothing, is not the best


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
    assert heading("cost/unheard") == "unheard"


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
    told = [{"step": s, "seconds": 10.0 * s} for s in (1, 1, 2, 3)]  # step 1 twice: a kill came between
    told += [{"seconds": 60.0 * at, "watts": watts} for at in steps] if watts else []
    (stage / TRACE).write_text("".join(json.dumps(row) + "\n" for row in told))
    return run


def test_a_curve_begins_where_the_stages_before_it_end(tmp_path: Path) -> None:
    trained(tmp_path / "s", "ppo", 1, "score")
    (run,) = read_runs([tmp_path / "s"])
    curve = read_curve(run)
    assert curve is not None
    assert (curve.measure, curve.values) == ("ppo: validation score", [0.1, 0.2, 0.3])
    assert curve.taken == {
        "labels": [60, 80, 100],
        "tokens_generated": [0, 0, 0],
        "flops": [3e12, 4e12, 5e12],
        "seconds": [21.0, 31.0, 41.0],
    }


def judged(run: Path, cap: dict[str, object]) -> None:
    """What the stage `validate` leaves of such a run: the judge's word on each of its validations."""
    record = json.loads((run / "run.json").read_text())
    (role,) = record["stages"]
    record["config"]["stages"][role] |= {"validation_prompts": 64, **cap}
    record["stages"]["validate"] = f"judged-{run.name}"
    stage = Path(record["config"]["runtime"]["outputs"]) / "stages/validate" / f"judged-{run.name}"
    stage.mkdir(parents=True)
    rows = [{"step": step, "validation/judge": -float(step)} for step in (1, 2, 3)]
    (stage / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "run.json").write_text(json.dumps(record))


def test_the_judge_puts_methods_on_one_axis_where_answers_had_one_cap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for method, metric, cap in (
        ("ppo", "score", {"response_tokens": [48, 48], "temperature": 1.0, "query_tokens": None}),
        ("dpo", "accuracy", {"validation_max_new_tokens": 48}),
        ("sft", "loss", {"validation_max_new_tokens": 20}),
    ):
        judged(trained(tmp_path / "s", method, 1, metric), cap)
    runs = read_runs([tmp_path / "s"])
    told = tmp_path / "s/outputs/stages/ppo/ppo1/history.jsonl"  # whose labels a reward model took before it began
    rows = [json.loads(line) for line in told.read_text().splitlines()]
    told.write_text("".join(json.dumps(row | ({"cost/labels": 60} if len(row) > 2 else {})) + "\n" for row in rows))
    curves = {run.value("method"): read_curve(run) for run in runs}
    assert {method: curve and curve.measure for method, curve in curves.items()} == {
        "ppo": "judge on 64 validation prompts,\nat most 48 tokens",
        "dpo": "judge on 64 validation prompts,\nat most 48 tokens",
        "sft": "judge on 64 validation prompts,\nat most 20 tokens",
    }
    assert all(curve and curve.values == [-1, -2, -3] and curve.taken["labels"] for curve in curves.values())
    drawn: list[Figure] = []
    monkeypatch.setattr(efficiency, "panels", lambda data, stem, keys, places, draw, note, marked: record(keys, draw))

    def record(keys: list[tuple[str, str]], draw: Callable[[Axes, tuple[str, str]], None]) -> list[Path]:
        for key in keys:
            drawn.append(Figure())
            draw(drawn[-1].subplots(), key)
        return []

    efficiency.draw_efficiency(table(runs), tmp_path / "figure")
    axes = [axes for figure in drawn for axes in figure.axes]
    prices = ("labels", "FLOPs", "minutes")  # not tokens generated: nobody drew any
    assert [(each.get_title(loc="left"), each.get_xlabel(), len(each.lines)) for each in axes] == [
        *(("judge on 64 validation prompts,\nat most 20 tokens", price, 1) for price in prices),
        *(("judge on 64 validation prompts,\nat most 48 tokens", price, 2) for price in prices),
    ]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"validation_prompts": 63}, "judge on 63 validation prompts,\nat most 48 tokens"),
        ({"response_tokens": [4, 16]}, "judge on 64 validation prompts,\nat most 4–16 tokens"),
        ({"query_tokens": [2, 7]}, "judge on 64 validation prompts,\nat most 48 tokens, cut to 2–7"),
        ({"temperature": 0.7}, "judge on 64 validation prompts,\nat most 48 tokens, T = 0.7"),
    ],
)
def test_who_answered_otherwise_has_a_panel_apart(tmp_path: Path, said: dict[str, object], words: str) -> None:
    judged(trained(tmp_path / "s", "ppo", 1, "score"), {"response_tokens": [48, 48], **said})
    (curve,) = map(read_curve, read_runs([tmp_path / "s"]))
    assert curve is not None and curve.measure == words


def test_figures_are_drawn_where_their_data_is(tmp_path: Path) -> None:
    for seed in (1, 2):
        trained(tmp_path / "s", "ppo", seed, "score", watts=200.0)
        trained(tmp_path / "s", "dpo", seed, "accuracy")
    report(tmp_path / "s", Console(file=io.StringIO()))
    drawn = {path.name for path in (tmp_path / "s").glob("*.p*")}
    assert {f"{name}.{kind}" for name in ("cost", "efficiency", "power") for kind in ("png", "pdf")} <= drawn
    write_run(tmp_path / "old", "dpo", 1, {"judge/mean": 0.5}, cost={"seconds": 1.0, "stages": {"dpo": {"seconds": 1}}})
    report(tmp_path / "old", Console(file=io.StringIO()))
    assert not {path.stem for path in (tmp_path / "old").glob("*.png")} & {"cost", "efficiency", "power"}


def test_the_gain_per_label_is_the_judges_over_what_the_method_bought(tmp_path: Path) -> None:
    metrics = {"judge/mean": 0.6, "judge/base_mean": 0.1}
    for seed, cost in ((1, {"method": {"labels": 250}}), (2, {"method": {"labels": 0}}), (3, {})):
        write_run(tmp_path / "s", "dpo", seed, metrics, cost=cost)
    bought, free, unknown = read_runs([tmp_path / "s"])
    assert bought.metrics["judge/gain_per_1000_labels"] == pytest.approx(0.5 / 0.25)
    assert not {"judge/gain_per_1000_labels"} & (free.metrics.keys() | unknown.metrics.keys())
    assert "gain per 1,000 labels" not in table([bought]).header
    assert "gain per 1,000 labels" in table([bought], ["judge/gain_per_1000_labels"]).header
