"""report.html as text: whole, escaped, without a request; and figures where their data is."""

import io
import json
import re
from pathlib import Path
from typing import Any, cast

from matplotlib.patches import Rectangle
from rich.console import Console

from prefsweep.report import figures, report
from prefsweep.report.runs import read_runs
from prefsweep.report.table import Table, table
from recorded import write_completions, write_run


def reported(sweep: Path) -> str:
    report(sweep, Console(file=io.StringIO()))
    return (sweep / "report.html").read_text()


def printed(sweep: Path) -> str:
    console = Console(file=io.StringIO())
    report(sweep, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def a_sweep(sweep: Path) -> Path:
    for seed in (1, 2):
        for method, score in (("base", 0.0), ("dpo", 1.0)):
            run = write_run(sweep, method, seed, overrides=[f"method={method}"])
            folder = write_completions(run, {"judge/mean": [score, score + seed / 10, score - 0.5]})
            (folder / "history.jsonl").write_text(
                "".join(json.dumps({"step": s, "loss": 1 / s, "validation/loss": 2 / s}) + "\n" for s in (1, 2, 3))
            )
    failed = write_run(sweep, "dpo", 3, status="failed", error="RuntimeError: <b>")
    (failed / "job.log").write_text("".join(f"line {n} of the log\n" for n in range(50)))
    write_run(sweep, "dpo", 4, status="missing")
    manifest = {"jobs": [run.name for run in sweep.iterdir()], "command": "prefsweep -m method=base,dpo"}
    (sweep / "sweep.json").write_text(json.dumps(manifest))
    return sweep


def test_the_page_holds_the_whole_sweep_and_asks_for_nothing(tmp_path: Path) -> None:
    page = reported(a_sweep(tmp_path / "s"))
    assert not re.findall(r"""(?:src|href)=["']?(?!data:|#)[^"'>]*://""", page) and "@import" not in page
    assert "2 of 4 (1 failed, 1 missing)" in page and "4 of 6 runs finished" in page
    assert "line 49 of the log" in page and "line 10 of the log" not in page
    assert "RuntimeError: &lt;b&gt;" in page and "Is 0 &lt;b&gt;odd&lt;/b&gt;?" in page and "Completion 2 of" in page
    assert "prefsweep -m method=base,dpo" in page and "commit c0ffee" in page
    assert {path.name for path in (tmp_path / "s").glob("*.p[nd][gf]")} == {
        f"{name}.{kind}" for name in ("figure", "curves", "bars") for kind in ("png", "pdf")
    }
    assert page.count("data:image/png;base64,") == 3


def test_every_cell_leads_to_its_runs(tmp_path: Path) -> None:
    page = reported(a_sweep(tmp_path / "s"))
    anchors = set(re.findall(r'id="([^"]+)"', page))
    links = re.findall(r'href="#([^"]+)"', page)
    assert len(links) >= 4 and set(links) <= anchors
    for target in re.findall(r'href="([^"#]+run\.json)"', page):
        assert (tmp_path / "s" / target).is_file()
    assert len(re.findall(r'href="[^"#]+run\.json"', page)) == 6


def test_samples_are_limited(tmp_path: Path) -> None:
    run = write_run(tmp_path / "s", "dpo", 1)
    folder = write_completions(run, {"judge/mean": [0.5] * 100})
    rows = [json.loads(line) | {"completion": "long " * 2000} for line in (folder / "completions.jsonl").open()]
    (folder / "completions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = reported(tmp_path / "s")
    assert page.count('class="completion"') == 12
    assert re.sub(r"base64,[^\"]*", "", page).count("long ") < 12 * 300


def test_one_or_two_numeric_keys_make_lines(tmp_path: Path) -> None:
    for beta in (0.1, 1.0):
        for rate in (1e-5, 1e-4):
            changes = {"stages.dpo.beta": beta, "stages.dpo.learning_rate": rate}
            write_run(tmp_path / "two", "dpo", 1, {"judge/mean": beta + rate}, **changes)
        write_run(tmp_path / "one", "dpo", 1, {"judge/mean": beta}, **{"stages.dpo.beta": beta})
    for name in ("one", "two"):
        reported(tmp_path / name)
        assert (tmp_path / name / "effects.png").stat().st_size > 5000
    write_run(tmp_path / "none", "dpo", 1, {"judge/mean": 1.0})
    reported(tmp_path / "none")
    assert not (tmp_path / "none" / "effects.png").exists()


def test_scores_are_drawn_by_the_rows_of_the_layout_whatever_its_metrics(tmp_path: Path, monkeypatch: Any) -> None:
    """A colour is one row in all figures, and the effect of a setting needs no column of the score."""
    for beta in (0.1, 1.0):
        for size in (50, 100):
            changes = {"stages.dpo.beta": beta, "dataset.size": size}
            run = write_run(tmp_path / "s", "dpo", 1, {"judge/mean": beta, "text/length": 30}, **changes)
    layout = {"metrics": ["text/length"], "rows": ["stages.dpo.beta", "dataset.size"]}
    manifest = {"jobs": [path.name for path in run.parent.iterdir()], "report": layout}
    (tmp_path / "s/sweep.json").write_text(json.dumps(manifest))
    drawn: list[Table] = []
    draw_runs = figures.draw_runs
    monkeypatch.setattr(figures, "draw_runs", lambda scores: drawn.append(scores) or draw_runs(scores))
    reported(tmp_path / "s")
    assert [scores.keys for scores in drawn] == [("stages.dpo.beta", "dataset.size")]
    assert (tmp_path / "s/effects.png").is_file()


def test_every_metric_of_the_bars_has_its_panel_with_a_bar_a_row(tmp_path: Path) -> None:
    names = ("judge/hmr", "judge/hpr", "judge/cas", "judge/mean_harmful", "judge/mean_helpful")
    for height, method in enumerate(("base", "dpo", "sft"), 1):
        write_run(tmp_path / "s", method, 1, dict.fromkeys(names, height / 4))
    figure = figures.draw_bars(table(read_runs([tmp_path / "s"]), names))
    assert figure is not None
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title(loc="left").split(",")[0] for axes in panels] == ["HmR", "HpR", "CAS", *["judge score"] * 2]
    assert all([cast(Rectangle, bar).get_height() for bar in axes.patches] == [0.25, 0.5, 0.75] for axes in panels)


def test_a_layout_that_does_not_fit_costs_itself_and_no_table(tmp_path: Path) -> None:
    sweep = a_sweep(tmp_path / "s")
    manifest = json.loads((sweep / "sweep.json").read_text())
    for metrics in (["judge/absent"], ["judge/mean", "judge/absent"]):
        manifest["report"] = {"metrics": metrics}
        (sweep / "sweep.json").write_text(json.dumps(manifest))
        assert "report: no run has judge/absent: not in the table" in printed(sweep)
        assert "judge score" in (sweep / "table.md").read_text()
    manifest["report"] = {"rows": ["mode"]}
    (sweep / "sweep.json").write_text(json.dumps(manifest))
    assert "the table is the default one" in printed(sweep)
    assert "judge score" in (sweep / "table.md").read_text()
