"""The report against records written to disk and numbers computed another way."""

import csv
import io
import json
import math
import re
import struct
import subprocess
import sys
from pathlib import Path
from statistics import stdev

import pytest
from rich.console import Console

from prefsweep.errors import UserError
from prefsweep.report import report
from prefsweep.report.figures import draw_figures, draw_runs
from prefsweep.report.runs import groups, read_runs, records, varying
from prefsweep.report.table import table
from prefsweep.report.writers import print_table, to_csv, to_markdown
from recorded import write_run

PATHS = [path for path in sys.path if path]


def a_sweep(folder: Path) -> Path:
    """base once; dpo three times, one failed; sft three times, one diverged but judged."""
    write_run(folder, "base", 1, {"judge/mean": -0.01, "kl/base": 0.0})
    for seed, score in ((1, 0.51), (3, 0.62)):
        write_run(folder, "dpo", seed, {"judge/mean": score, "kl/base": 3.0 + seed, "text/length": 41.5})
    write_run(folder, "dpo", 2, status="failed", error="Traceback\n  File ...\nRuntimeError: out of [memory]\n")
    for seed, status in ((1, "finished"), (2, "finished"), (3, "diverged")):
        write_run(folder, "sft", seed, {"judge/mean": seed / 10, "kl/base": 1.0}, status=status)
    return folder


def lines_of(text: str) -> dict[str, list[str]]:
    """First cell → the other cells of a markdown row."""
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    return {first: rest for first, *rest in rows}


# ----------------------------------------------------------------------------------------------- reading, grouping


def test_runs_are_read_from_a_sweep_from_a_run_and_in_order(tmp_path: Path) -> None:
    for seed in (10, 2, 1):
        folder = write_run(tmp_path / "demo", "sft", seed)
    write_run(tmp_path / "demo", "sft+dpo", 1)
    (tmp_path / "demo" / ".aside").mkdir()
    (tmp_path / "demo" / ".aside" / "run.json").write_text("half")
    read = read_runs([tmp_path / "demo"])
    assert list(zip(read["method"], read["seed"], strict=True)) == [("sft", 1), ("sft", 2), ("sft", 10), ("sft+dpo", 1)]
    assert read_runs([folder])["seed"].tolist() == [1]


def test_a_job_in_two_sweeps_counts_once_and_with_its_result(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "sft", 1, status="failed")
    write_run(tmp_path / "b", "sft", 1, {"judge/mean": 0.5})
    (run,) = records(read_runs([tmp_path / "a", tmp_path / "b"]))
    assert (run["status"], run["folder"].parent.name) == ("finished", "b")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"status": "finished", "metrics": 3}', '"\\ud800"'])
def test_an_unreadable_record_is_one_line_that_names_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError) as error:
        read_runs([tmp_path])
    assert str(tmp_path / "run.json") in str(error.value) and "\n" not in str(error.value)


def test_a_folder_without_records_is_one_line_that_names_it(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match=re.escape(str(folder))) as error:
            read_runs([folder])
        assert "\n" not in str(error.value)


def test_what_follows_from_a_name_the_seed_or_the_machine_does_not_vary(tmp_path: Path) -> None:
    for method, rate in (("sft", 1e-4), ("dpo", 1e-5)):
        for seed in (1, 2):
            write_run(tmp_path, method, seed, **{f"stages.{method}.rate": rate, "stages.generate.prompts": 500})
    runs = read_runs([tmp_path])
    assert varying(runs) == ["method"]
    assert [group["seed"].tolist() for _, group in groups(runs, varying(runs))] == [[1, 2], [1, 2]]


def test_what_differs_under_equal_names_is_listed_after_the_names(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(tmp_path, "sft", seed)
        for beta in (0.1, 0.5):
            write_run(tmp_path, "dpo", seed, **{"stages.dpo.beta": beta})
    write_run(tmp_path, "dpo", 1, **{"model.architecture.n_embd": 32, "stages.dpo.beta": 0.5})
    runs = read_runs([tmp_path])
    assert varying(runs)[0] == "method"
    assert set(varying(runs)) == {"method", "stages.dpo.beta", "model.architecture.n_embd"}
    assert sorted(len(group) for _, group in groups(runs, varying(runs))) == [1, 2, 2, 2]


def test_a_seed_that_is_not_in_every_run_the_run_s_own_varies(tmp_path: Path) -> None:
    write_run(tmp_path, "dpo", 1, **{"dataset.seed": 1})
    write_run(tmp_path, "dpo", 2, **{"dataset.seed": 7})
    assert varying(read_runs([tmp_path])) == ["dataset.seed"]


# ---------------------------------------------------------------------------------------------------------- table


def test_a_cell_is_what_a_pocket_calculator_gives(tmp_path: Path) -> None:
    values = [0.512, 0.587, 0.561]
    for seed, value in enumerate(values, 1):
        write_run(tmp_path, "dpo", seed, {"judge/mean": value})
    mean = sum(values) / 3
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / 2)
    shown = lines_of(to_markdown(table(read_runs([tmp_path]))))
    assert shown["dpo"] == [f"{mean:.3f} ± {4.302653 * spread / math.sqrt(3):.3f}", "3 of 3"]


def test_rows_say_what_became_of_every_run(tmp_path: Path) -> None:
    a_sweep(tmp_path)
    write_run(tmp_path, "ppo", 1, {"judge/mean": 9.0}, status="running")
    write_run(tmp_path, "ppo", 2, status="missing")
    write_run(tmp_path, "ppo", 3, status="diverged", error="loss is nan")
    made = table(read_runs([tmp_path]))
    assert {row.keys[0]: row.tally for row in made.rows} == {
        "base": "1 of 1",
        "dpo": "2 of 3 (1 failed)",
        "ppo": "0 of 3 (1 diverged, 1 missing, 1 running)",
        "sft": "3 of 3 (1 diverged)",
    }
    shown = lines_of(to_markdown(made))
    assert shown["base"][0] == "−0.010"  # one seed: no interval
    assert shown["ppo"][:3] == ["–"] * 3  # what runs still is no result
    assert shown["sft"][0].startswith("0.200 ±")  # the diverged one stays in the mean


def test_the_caption_says_what_the_numbers_mean(tmp_path: Path) -> None:
    caption = table(read_runs([a_sweep(tmp_path)])).caption
    assert "Model gpt2-tiny, dataset synthetic-reviews, judge oracle." in caption
    assert "mean over seeds ± half-width of its 95% Student-t interval, which is over seeds alone" in caption
    assert "value without an interval is a single run" in caption
    assert "500 test prompts a run" in caption and "diverged" in caption


def test_one_seed_has_no_interval_and_the_caption_says_so(tmp_path: Path) -> None:
    write_run(tmp_path, "dpo", 4, {"judge/mean": 0.5})
    made = table(read_runs([tmp_path]))
    assert "A value without an interval is a single run" in made.caption
    assert made.lines() == [["dpo", "0.500", "1 of 1"]]


def test_metrics_may_differ_between_runs(tmp_path: Path) -> None:
    write_run(tmp_path, "dpo", 1, {"kl/base": 2.0, "judge/mean": 0.25, "mine/own": 1234.5})
    write_run(tmp_path, "dpo", 2, {"judge/mean": 0.75, "kl/base": float("nan"), "note": "text"})
    runs = read_runs([tmp_path])
    assert table(runs).header == ["method", "judge score", "KL to base", "runs"]
    assert table(runs).lines()[0][2] == "2.00 (n = 1)"
    assert table(runs, ["mine/own", "judge/mean"]).header == ["method", "mine/own", "judge score", "runs"]
    assert table(runs, ["mine/own"]).lines()[0][1] == "1234 (n = 1)"
    with pytest.raises(UserError, match=r"judge/men: no run has this metric \(nearest: judge/mean\)"):
        table(runs, ["judge/men"])


def test_rows_are_in_the_order_of_their_values(tmp_path: Path) -> None:
    for beta in (1.0, 0.05, 10.0, 0.5):
        write_run(tmp_path, "dpo", 1, {"judge/mean": beta}, **{"stages.dpo.beta": beta})
    made = table(read_runs([tmp_path]))
    assert [line[0] for line in made.lines()] == ["0.05", "0.5", "1", "10"]
    assert made.header[0] == "dpo.beta"


def test_the_csv_gives_back_every_value_and_its_run(tmp_path: Path) -> None:
    made = table(read_runs([a_sweep(tmp_path)]))
    cells = {(line["method"], line["metric"]): line for line in csv.DictReader(io.StringIO(to_csv(made)))}
    assert len(cells) == 9
    for row in made.rows:
        for cell in row.cells:
            name = cell.metric.name
            line = cells[row.keys[0], name]
            folders = line["folders"].split(";") if line["folders"] else []
            read = [json.loads((Path(folder) / "run.json").read_text())["metrics"][name] for folder in folders]
            assert tuple(map(float, line["values"].split(";") if line["values"] else [])) == cell.values == tuple(read)
            assert (int(line["n"]), line["sd"]) == (len(read), repr(stdev(read)) if len(read) > 1 else "")
    assert Path(cells["dpo", "judge/mean"]["left_out"]).name.endswith("dpo_seed2")
    assert cells["dpo", "judge/mean"]["seeds"] == "1;3"


@pytest.mark.parametrize("width", [30, 60, 80, 200])
def test_no_number_is_cut_on_a_terminal_of_any_width(tmp_path: Path, width: int) -> None:
    made = table(read_runs([a_sweep(tmp_path)]))
    console = Console(file=io.StringIO(), width=width)
    print_table(made, console)
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    for line in made.lines():
        assert all(text in printed for text in line)


def test_a_thousand_runs(tmp_path: Path) -> None:
    for seed in range(250):
        for beta in (0.1, 0.2, 0.5, 1.0):
            write_run(tmp_path, "dpo", seed, {"judge/mean": beta + seed / 1000}, **{"stages.dpo.beta": beta})
    made = table(read_runs([tmp_path]))
    assert [row.tally for row in made.rows] == ["250 of 250"] * 4
    assert made.rows[0].cells[0].mean == pytest.approx(0.1 + 0.1245)
    assert "seeds 0, 1, 2, 3, 4, 5, 6, 7 and 242 more" in made.provenance


# ------------------------------------------------------------------------------------------------- figure, report


def png_size(path: Path) -> tuple[int, int]:
    width, height = struct.unpack(">II", path.read_bytes()[16:24])
    return width, height


def test_the_figure_is_six_inches_wide_and_the_same_each_time(tmp_path: Path) -> None:
    scores = table(read_runs([a_sweep(tmp_path)]), ["judge/mean"])
    written = draw_figures(scores, scores, tmp_path, "", keep=False)[:2]
    assert [path.name for path in written] == ["figure.png", "figure.pdf"]
    width, height = png_size(written[0])
    assert width == 1800 and 600 < height < 1500
    assert written[1].read_bytes().startswith(b"%PDF")
    first = [path.read_bytes() for path in written]
    draw_figures(scores, scores, tmp_path, "", keep=False)
    assert [path.read_bytes() for path in written] == first


def test_a_figure_without_kl_is_one_panel(tmp_path: Path) -> None:
    write_run(tmp_path, r"a$\frac$", 1, {"judge/mean": 0.5})
    scores = table(read_runs([tmp_path]), ["judge/mean"])
    figure = draw_runs(scores)
    assert len(figure.axes) == 1 and figure.get_figheight() < 2


def test_the_report_writes_beside_the_runs_and_lists_failures(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=100)
    written = report(a_sweep(tmp_path / "demo"), console)
    assert [path.name for path in written] == [
        *("table.md", "table.tex", "table.csv", "figure.png", "figure.pdf", "bars.png", "bars.pdf", "report.html")
    ]
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert "dpo_seed2: RuntimeError: out of [memory]\n" in printed and "Traceback" not in printed
    assert all(path.is_file() and str(path) in printed for path in written)
    assert not list((tmp_path / "demo").glob(".*"))


def test_a_sweep_in_which_all_failed_still_has_its_table(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(tmp_path, "dpo", seed, status="failed", error="killed")
    written = report(tmp_path, Console(file=io.StringIO()))
    assert [path.name for path in written] == ["table.md", "table.tex", "table.csv", "report.html"]
    assert lines_of(written[0].read_text())["dpo"] == ["0 of 2 (2 failed)"]
    (line,) = csv.DictReader(io.StringIO(written[2].read_text()))
    assert line["n"] == "0" and len(line["left_out"].split(";")) == 2


def test_a_report_imports_nothing_heavy(tmp_path: Path) -> None:
    a_sweep(tmp_path)
    code = (
        f"import sys; sys.path[:0] = {PATHS}\n"
        "from pathlib import Path\n"
        "from prefsweep.report import read_runs, report, table, to_csv\n"
        f"to_csv(table(read_runs([Path({str(tmp_path)!r})])))\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"report(Path({str(tmp_path)!r}))\n"
        "heavy = {'torch', 'transformers', 'trl', 'hydra', 'datasets', 'matplotlib.pyplot'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
