"""Two rows against each other, and the configuration that validation chose, in a sweep's own report."""

import csv
import io
import json
import random
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from rich.console import Console

from prefsweep.config.compose import compose, composing
from prefsweep.errors import UserError
from prefsweep.report import report
from prefsweep.report.runs import read_runs, records
from prefsweep.report.table import table
from prefsweep.report.versus import to_markdown, versus
from recorded import write_completions, write_run
from test_choice import tuned

METRICS = ("judge/mean", "kl/base", "text/length", "preference/accuracy")


def sweep(folder: Path, seeds: int, gap: float = 0.5) -> Path:
    """dpo's score is ppo's and `gap`, its accuracy no better; length is a matter of taste."""
    rng = random.Random(0)
    for seed in range(1, seeds + 1):
        for method, above in (("ppo", 0.0), ("dpo", gap)):
            values = {
                "judge/mean": [above + rng.gauss(0, 0.3) for _ in range(60)],
                "preference/accuracy": [float(rng.random() < 0.7) for _ in range(60)],
                "text/length": [30.0 + seed] * 60,
                "kl/base": [2.0] * 60,
            }
            write_completions(write_run(folder, method, seed), values)
    return folder


def texts_of(folder: Path, *names: str) -> dict[str, list[str]]:
    made = versus(table(read_runs([folder]), METRICS), names or ("dpo", "ppo"))
    return {line[0]: line[1:] for line in made.texts()}


def test_it_says_which_is_better_and_whether_by_more_than_noise(tmp_path: Path) -> None:
    texts = texts_of(sweep(tmp_path / "s", 5))
    assert texts["judge score"][3:] == ["dpo", "yes, p < 0.001"]
    assert texts["preference accuracy"][3] in ("dpo", "ppo") and texts["preference accuracy"][4].startswith("no, p = ")
    assert texts["KL to base"][3] == texts["completion length"][3] == "–"
    turned = texts_of(sweep(tmp_path / "s", 5), "ppo", "dpo")
    assert turned["judge score"][3:] == ["dpo", "yes, p < 0.001"]
    assert turned["judge score"][2].replace("−", "") == texts["judge score"][2]


def test_its_p_values_are_a_paired_t_tests_corrected_by_holm(tmp_path: Path) -> None:
    """Of a cost over seeds alone; three of the five lines have a spread."""
    folder, rng = sweep(tmp_path / "s", 5), random.Random(1)
    for path in folder.glob("*/run.json"):
        record = json.loads(path.read_text())
        record["cost"]["method"] = {"seconds": rng.gauss(60, 1)}
        path.write_text(json.dumps(record))
    made = versus(table(read_runs([folder]), [*METRICS, "cost/seconds"]), ("dpo", "ppo"))
    seconds = made.lines[-1]
    one, other = (cell.values for cell in seconds.cells)
    raw = [scipy.stats.ttest_rel(one, other).pvalue]
    raw += [line.difference.p_value for line in made.lines if line.difference is not None and line is not seconds]
    by_hand = max(min(1, p * (5 - index)) for index, p in enumerate(sorted(raw)) if p <= raw[0])
    assert seconds.p_value == pytest.approx(by_hand)


def test_without_values_by_prompt_nothing_is_called_more_than_noise(tmp_path: Path) -> None:
    """Over seeds alone the luck of the shared prompts would pass for a difference; and bounds are not compared."""
    for seed in range(1, 6):
        for method, value in (("dpo", 0.9), ("ppo", 0.5)):
            metrics = {"preference/accuracy": value + seed / 1000, "frontier/efficiency": value - seed / 1000}
            write_run(tmp_path / "s", method, seed, metrics)
    made = versus(table(read_runs([tmp_path / "s"]), ["preference/accuracy", "frontier/efficiency"]), ("dpo", "ppo"))
    assert [line[-1] for line in made.texts()] == ["untested: no values by prompt", "untested: bounds"]
    assert made.texts()[1][1:4] == ["≤ 0.897", "≤ 0.497", "–"]


def test_with_too_few_seeds_nothing_is_called_more_than_noise(tmp_path: Path) -> None:
    assert texts_of(sweep(tmp_path / "s", 3))["judge score"][3:] == ["dpo", "untested: 3 seeds"]


def test_it_says_of_which_row_there_are_too_few_seeds(tmp_path: Path) -> None:
    """One run is enough of a row that no seed changes; and five seeds of each are too few where none is in both."""
    folder = sweep(tmp_path / "s", 3)
    base = write_run(folder, "base", 1, {"text/length": 20}, **{"method.pipeline": {}, "method.result": "base"})
    record = json.loads((base / "run.json").read_text())
    record["config"]["stages"] = {"generate": record["config"]["stages"]["generate"]}
    (base / "run.json").write_text(json.dumps(record))
    assert texts_of(folder, "ppo", "base")["completion length"][4] == "untested: 3 seeds"
    apart = tmp_path / "t"
    for seed in range(1, 6):
        write_run(apart, "ppo", seed, dict.fromkeys(METRICS, 30 + seed))
        write_run(apart, "dpo", seed + 5, dict.fromkeys(METRICS, 40 + seed))
    assert texts_of(apart, "ppo", "dpo")["completion length"][2:] == ["–", "–", "untested: no seed in common"]


def test_a_bar_in_a_value_ends_no_cell_of_the_markdown(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    for method in ("p|o", "dpo"):
        write_run(folder, method, 1, {"text/length": 30})
    made = versus(table(read_runs([folder]), ["text/length"]), ("p|o", "dpo"))
    assert to_markdown(made).startswith(r"|  | p\|o | dpo | ")


def test_it_says_how_many_settings_each_was_tried_with(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", 2)
    assert versus(table(read_runs([folder]), METRICS), ("dpo", "ppo")).note.endswith("tried here: dpo 1, ppo 1.")
    for beta in (0.2, 0.3):
        write_run(folder, "dpo", 9, {"judge/mean": 0.0}, **{"stages.dpo.beta": beta})
    made = table(read_runs([folder]), ["judge/mean"])
    assert "tried here: 0.2 3, ppo 1: not equally many" in versus(made, ("0.2", "ppo")).note


def test_rows_that_are_not_two_are_refused(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", 2)
    made = table(read_runs([folder]), METRICS)
    with pytest.raises(UserError, match=r"report.versus=dop: no row has it \(nearest: dpo\)"):
        versus(made, ("dop", "ppo"))
    with composing(), pytest.raises(UserError, match="name two rows"):
        compose(["report.versus=[ppo]"])


def test_a_sweeps_report_has_both_where_its_experiment_asks(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", 5)
    jobs = [path.name for path in read_runs([folder])["folder"]]
    settings = {"metrics": list(METRICS), "versus": ["dpo", "ppo"]}
    (folder / "sweep.json").write_text(json.dumps({"jobs": jobs, "report": settings}))
    console = Console(file=io.StringIO(), width=200)
    written = report(folder, console)
    made = versus(table(read_runs([folder]), METRICS), ("dpo", "ppo"))
    assert (folder / "versus.md").read_text() == to_markdown(made) and folder / "versus.md" in written
    page = (folder / "report.html").read_text()
    assert "Two rows against each other" in page and "yes, p &lt; 0.001" in page
    (folder / "sweep.json").write_text(json.dumps({"jobs": jobs, "report": {**settings, "versus": ["x", "ppo"]}}))
    assert folder / "versus.md" not in report(folder, console)  # a mistake costs this, not the table


def test_the_caption_names_what_validation_chose(tmp_path: Path) -> None:
    folder = tuned(tmp_path / "s", {0.1: 0.9, 0.5: 0.3}, {0.1: [0.5, 0.6], 0.5: [0.7, 0.2]})
    jobs = [path.name for path in read_runs([folder])["folder"]]
    (folder / "sweep.json").write_text(json.dumps({"jobs": jobs, "report": {"best_by": "validation/loss"}}))
    report(folder, Console(file=io.StringIO()))
    sentence = "The best of 2 by validation/loss is dpo.learning_rate 0.5 (0.2000)."
    assert sentence in (folder / "table.md").read_text()


def test_a_best_one_that_cannot_be_named_costs_its_sentence_alone(tmp_path: Path) -> None:
    """Two methods here, and no run measured the metric: rows, metrics and the note stay as the experiment has them."""
    folder = sweep(tmp_path / "s", 2)
    jobs = [path.name for path in read_runs([folder])["folder"]]
    settings = {"metrics": ["text/length"], "best_by": "validation/loss", "note": "A word of the experiment."}
    (folder / "sweep.json").write_text(json.dumps({"jobs": jobs, "report": settings}))
    console = Console(file=io.StringIO(), width=200)
    report(folder, console)
    text = (folder / "table.md").read_text()
    assert "A word of the experiment." in text and "The best of" not in text
    assert "completion length" in text and "KL to base" not in text
    assert isinstance(console.file, io.StringIO)
    messages = [line for line in console.file.getvalue().splitlines() if line.startswith("report: ")]
    assert len(messages) == 1 and messages[0].endswith("the caption names no best one")


def test_each_of_its_numbers_leads_to_its_runs(tmp_path: Path) -> None:
    """In its CSV, to the last bit, and on the page, where a click finds the runs of that row."""
    folder = sweep(tmp_path / "s", 5)
    jobs = [path.name for path in read_runs([folder])["folder"]]
    settings = {"metrics": list(METRICS), "versus": ["dpo", "ppo"]}
    (folder / "sweep.json").write_text(json.dumps({"jobs": jobs, "report": settings}))
    written = report(folder, Console(file=io.StringIO()))
    assert {folder / "versus.csv", folder / "versus.md"} <= set(written)
    lines = {line["metric"]: line for line in csv.DictReader(io.StringIO((folder / "versus.csv").read_text()))}
    assert list(lines) == list(METRICS)
    runs = read_runs([folder])
    made = versus(table(runs, METRICS), ("dpo", "ppo"))
    page = (folder / "report.html").read_text().split('id="versus"')[1].split('id="samples"')[0]
    for shown in made.lines:
        metric = shown.cells[0].metric.name
        line = lines[metric]
        for name, row in zip(made.names, made.rows, strict=True):
            behind = [run for run in records(runs) if run["method"] == name]
            assert line[f"folders_{name}"].split(";") == [str(run["folder"]) for run in behind]
            assert line[f"runs_{name}"].split(";") == [run["identity"] for run in behind]
            values = [run[metric] for run in behind]
            assert list(map(float, line[f"values_{name}"].split(";"))) == values
            assert float(line[f"mean_{name}"]) == pytest.approx(np.mean(values))
            assert f'<a href="#t0-r{row}" title="{values[0]!r}  {behind[0]["identity"]}' in page
        assert shown.difference is not None
        assert (float(line["low_95"]) + float(line["high_95"])) / 2 == pytest.approx(float(line["difference"]))
        assert float(line["p_holm"]) == shown.p_value
