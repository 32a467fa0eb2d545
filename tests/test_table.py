"""Tables with intervals over seeds and prompts: recomputed, refused, marked, with a paper's numbers, and in LaTeX."""

import csv
import io
import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from prefsweep.cli.parser import parse
from prefsweep.errors import UserError
from prefsweep.report import completions, report, table_of
from prefsweep.report.completions import read_completions
from prefsweep.report.runs import read_runs
from prefsweep.report.table import Table, comparable_sets, table
from prefsweep.report.writers import latex, to_csv, to_latex, to_markdown
from recompute import recomputed
from recorded import write_completions, write_run


def groups_of_two() -> list[str]:
    """Of 40 prompts."""
    return [f"g{index // 2}" for index in range(40)]


def judged(sweep: Path, seeds: int = 5, methods: dict[str, float] | None = None) -> Path:
    """A sweep with two answers to each of 40 prompts: `methods` and their mean score; base needs one seed alone."""
    rng = np.random.default_rng(3)
    of_prompt = np.repeat(rng.standard_normal(40), 2)
    groups = groups_of_two()
    for method, mean in (methods or {"base": 0.0, "dpo": 1.0, "sft": 0.5}).items():
        for seed in range(1, 2 if method == "base" else seeds + 1):
            noise = 0.1 * rng.standard_normal() * (method != "base") + 0.4 * rng.standard_normal(80)
            scores = mean + 0.5 * of_prompt + noise
            run = write_run(sweep, method, seed, **({"stages.base": {}} if method == "base" else {}))
            wins = np.where(scores > of_prompt, 1.0, 0.0)
            write_completions(run, {"judge/mean": scores.tolist(), "judge/win_rate": wins.tolist()}, groups, 2)
    return sweep


def made(sweep: Path) -> Table:
    return table(read_runs([sweep]))


def cells(text: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    return {first: rest for first, *rest in rows}


def test_every_number_is_that_of_an_independent_script_to_the_last_digit(tmp_path: Path) -> None:
    shown = made(judged(tmp_path / "sweep", seeds=3))
    for metric, column, rate in (("judge/mean", 1, False), ("judge/win_rate", 2, True)):
        decimals = len(shown.lines()[1][column].split(" ")[0].partition(".")[2])
        expected = recomputed(tmp_path / "sweep", metric, decimals, rate)
        assert {line[0]: line[column] for line in shown.lines()} == expected


def test_the_second_reading_is_of_what_was_kept_and_says_the_same(tmp_path: Path) -> None:
    first = to_csv(made(judged(tmp_path / "sweep")))
    cache = tmp_path / "sweep/completions.parquet"
    frame = pd.read_parquet(cache)
    assert len(frame) == 11 * 20 and frame["stage"].nunique() == 11
    before = cache.stat().st_mtime_ns
    assert to_csv(made(tmp_path / "sweep")) == first and cache.stat().st_mtime_ns == before
    cache.write_bytes(b"half")
    assert to_csv(made(tmp_path / "sweep")) == first


def test_only_what_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new run's file and one that was written again; the others may be gone: their averages are kept."""
    made(judged(tmp_path / "s", seeds=2))
    read: list[str] = []
    summarise = completions.summarise
    monkeypatch.setattr(
        completions, "summarise", lambda path, name: read.append(path.parent.name) or summarise(path, name)
    )
    again = write_completions(write_run(tmp_path / "s", "sft", 1), {"judge/mean": [0.5] * 80}, groups_of_two(), 2)
    new = write_completions(write_run(tmp_path / "s", "sft", 9), {"judge/mean": [0.25] * 80}, groups_of_two(), 2)
    shown = made(tmp_path / "s")
    assert sorted(read) == sorted([again.name, new.name])
    values = {
        seed: value for row in shown.rows for seed, value in zip(row.runs["seed"], row.cells[0].values, strict=True)
    }
    assert values[9] == 0.25 and 0.5 in shown.rows[-1].cells[0].values


def test_answers_that_are_not_what_the_metric_is_the_mean_of_give_no_interval(tmp_path: Path) -> None:
    run = write_run(tmp_path / "s", "dpo", 1)
    write_completions(run, {"judge/mean": [1.0, 2.0, 4.0]})
    assert made(tmp_path / "s").rows[0].cells[0].over == "prompts"
    record = json.loads((run / "run.json").read_text())
    record["metrics"]["judge/mean"] = 2.5
    (run / "run.json").write_text(json.dumps(record))
    assert made(tmp_path / "s").rows[0].cells[0].over == ""


def test_the_caption_says_what_each_interval_is_over(tmp_path: Path) -> None:
    assert "over prompts alone: another seed may differ" in made(judged(tmp_path / "a", seeds=1)).caption
    caption = made(judged(tmp_path / "b", seeds=3)).caption
    assert "over new seeds and new prompts" in caption and "Wilson" in caption and "f a single run" in caption


def test_best_is_bold_where_it_is_so_and_only_from_five_seeds_on(tmp_path: Path) -> None:
    clear = cells(to_markdown(made(judged(tmp_path / "clear"))))
    assert clear["dpo"][0].startswith("**") and clear["sft"][0].endswith(r"\*") and clear["base"][0].endswith(r"\*")
    few = to_markdown(made(judged(tmp_path / "few", seeds=4)))
    assert "**" not in few and r"\*" not in few and "Holm" not in few
    close = to_markdown(made(judged(tmp_path / "close", methods={"dpo": 0.5, "sft": 0.51, "ppo": 0.5})))
    assert "**" not in close and "Holm" in close


def test_pairing_finds_a_difference_that_intervals_side_by_side_hide(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    of_prompt = 3 * rng.standard_normal(60)
    for method, gain in (("dpo", 0.3), ("sft", 0.0)):
        for seed in range(1, 6):
            scores = gain + of_prompt + 0.2 * rng.standard_normal(60)
            write_completions(write_run(tmp_path / "s", method, seed), {"judge/mean": scores.tolist()})
    shown = made(tmp_path / "s")
    (low, _), (_, high) = (row.cells[0].interval or (0.0, 0.0) for row in shown.rows)
    assert low < high and shown.rows[0].cells[0].mark == "best"


def test_nothing_is_best_of_a_price(tmp_path: Path) -> None:
    for seed in range(1, 6):
        for method, kl in (("dpo", 4.0), ("sft", 1.0)):
            write_run(tmp_path, method, seed, {"kl/base": kl + seed / 100})
    assert not any(row.cells[0].mark == "best" for row in made(tmp_path).rows)


PLAIN = {"stages.generate.temperature": 1, "stages.generate.max_new_tokens": 64}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"judge.name": "deberta-v3"}, "judge (deberta-v3, oracle)"),
        ({"stages.generate.temperature": 0.7}, "generate.temperature (0.7, 1)"),
        ({"stages.generate.max_new_tokens": 50}, "generate.max_new_tokens (50, 64)"),
        ({"stages.generate.prompts": 50}, "generate.prompts (50, 500)"),
    ],
)
def test_runs_that_are_not_comparable_are_refused_in_a_line(
    tmp_path: Path, change: dict[str, object], named: str
) -> None:
    write_run(tmp_path / "a", "dpo", 1, {"judge/mean": 1.0}, **PLAIN)
    write_run(tmp_path / "b", "sft", 1, {"judge/mean": 1.0}, **PLAIN | change)
    with pytest.raises(UserError, match="share no table") as error:
        table_of([tmp_path / "b", tmp_path / "a"], {}, "md", None, Console(file=io.StringIO()))
    assert named in str(error.value) and "\n" not in str(error.value)


def test_other_prompts_are_seen_in_the_samples(tmp_path: Path) -> None:
    write_completions(write_run(tmp_path / "s", "dpo", 1), {"judge/mean": [1.0, 2.0, 3.0]})
    write_completions(write_run(tmp_path / "s", "sft", 1), {"judge/mean": [1.0, 2.0]})
    with pytest.raises(UserError, match="the prompts that were completed"):
        made(tmp_path / "s")


def test_a_sweep_over_judges_ends_in_a_table_each(tmp_path: Path) -> None:
    write_run(tmp_path, "dpo", 1, {"judge/mean": 1.0})
    write_run(tmp_path, "sft", 1, {"judge/mean": 1.0}, **{"judge.name": "other"})
    console = Console(file=io.StringIO(), width=200)
    names = {path.name for path in report(tmp_path, console)}
    assert {"table.md", "table-2.md", "table-2.csv"} <= names
    assert isinstance(console.file, io.StringIO)
    assert "differ in judge (oracle, other): a table each" in console.file.getvalue()


def test_keys_can_be_spread_over_columns_and_rows_named(tmp_path: Path) -> None:
    for method in ("dpo", "sft"):
        for size in (100, 50):
            write_run(tmp_path, method, 1, {"judge/mean": size / 1000}, **{"dataset.size": size})
    runs = read_runs([tmp_path])
    spread = table(runs, across=["dataset.size"])
    assert spread.header == ["method", "judge score, 50", "judge score, 100", "runs"]
    assert spread.lines()[0] == ["dpo", "0.0500", "0.100", "2 of 2"]
    assert table(runs, rows=["dataset.size", "method"]).header[:2] == ["dataset.size", "method"]
    with pytest.raises(UserError, match=r"would put runs that differ in dataset\.size into one row"):
        table(runs, rows=["method"])
    with pytest.raises(UserError, match=r"methd: no run has this key \(nearest: method\)"):
        table(runs, rows=["methd"])


PUBLISHED = [{"where": {"method": "sft"}, "metrics": {"judge/hmr": 48, "judge/mean": -3.5}, "n": 50, "source": "[1]"}]


def test_published_numbers_stand_beside_ours_with_their_interval(tmp_path: Path) -> None:
    for method in ("base", "sft"):
        run = write_run(tmp_path / "s", method, 1)
        write_completions(run, {"judge/hmr": [1.0, 0.0] * 10, "judge/mean": [0.5, 0.7] * 10})
    manifest = {"jobs": [run.name for run in (tmp_path / "s").iterdir()], "published": PUBLISHED}
    (tmp_path / "s/sweep.json").write_text(json.dumps(manifest))
    report(tmp_path / "s", Console(file=io.StringIO()))
    shown = cells((tmp_path / "s/table.md").read_text())
    assert shown["method"][:4] == ["judge score", "judge score (published)", "HmR", "HmR (published)"]
    assert shown["sft"][3] == "0.480 [0.348, 0.615] (n = 50)"  # in percent there, Wilson's
    assert shown["sft"][1] == "−3.500 (n = 50)" and shown["base"][1] == shown["base"][3] == "–"
    lines = {(line["method"], line["metric"]): line for line in csv.DictReader((tmp_path / "s/table.csv").open())}
    assert lines["sft", "judge/hmr"]["published_n"] == "50" and lines["sft", "judge/hmr"]["published_source"] == "[1]"


def test_a_share_that_was_published_in_percent_is_read_as_one_whatever_ours_is(tmp_path: Path) -> None:
    """CAS has no value of single completions, so nothing of ours says that it is a share; HmR's may be gone."""
    run = write_run(tmp_path, "sft", 1, {"judge/cas": 0.5, "judge/hmr": 0.5, "judge/mean": 0.5})
    entries = [{"where": {"method": "sft"}, "metrics": {"judge/cas": 52, "judge/hmr": 48, "judge/mean": 2}, "n": 50}]
    one = table(read_runs([run.parent]), ["judge/cas", "judge/hmr", "judge/mean"], published=entries)
    published = [cell.published for cell in one.rows[0].cells]
    assert [number.value for number in published if number] == [0.52, 0.48, 2.0]
    assert [number.low is not None for number in published if number] == [False, True, False]


def test_every_cell_of_the_csv_names_its_runs(tmp_path: Path) -> None:
    for line in csv.DictReader(io.StringIO(to_csv(made(judged(tmp_path / "s", seeds=2))))):
        for folder, identity in zip(line["folders"].split(";"), line["runs"].split(";"), strict=True):
            assert json.loads((Path(folder) / "run.json").read_text())["identity"] == identity


def test_judges_of_one_name_with_other_weights_do_not_share_a_table(tmp_path: Path) -> None:
    for seed, judge in ((1, "one"), (2, "one"), (3, "another")):
        write_run(tmp_path, "dpo", seed, {"judge/mean": 0.0}, stages={"judge_accuracy": judge})
    write_run(tmp_path, "sft", 1, {"judge/mean": 0.0})  # killed before it said
    runs = read_runs([tmp_path])
    assert [len(members) for members in comparable_sets(runs, read_completions(runs))] == [3, 1]


def test_the_line_of_provenance_says_where_numbers_come_from(tmp_path: Path) -> None:
    sweep = judged(tmp_path / "mine", seeds=2)
    for path in sweep.glob("*/run.json"):
        record = json.loads(path.read_text())
        record["metrics"] |= {"judge/accuracy": 0.7123, "judge/length_accuracy": 0.57, "reward/accuracy": 0.9}
        record["decoding"] |= {"temperature": 0.0, "completions_per_prompt": 2, "max_new_tokens": 64}
        path.write_text(json.dumps(record))
    line = made(sweep).provenance
    for part in (
        *("Sweep mine", "commit c0ffeec0ffee", "judge oracle (right on 0.712 of test pairs, length alone 0.570)"),
        *("reward (right on 0.900 of validation pairs)",),
        *("n 40 prompts", "seeds 1, 2", "decoding greedy, 2 completions a prompt, at most 64 tokens"),
    ):
        assert part in line
    assert re.search(r"data [0-9a-f]{12}", line)


# ----------------------------------------------------------------------------------------------------------- LaTeX


def an_ugly_table(tmp_path: Path) -> Table:
    for seed in range(1, 6):
        for method, score in ((r"a_b & 50% \of $x^2 {~}#", 1.0), ("[plain]", -0.5)):
            run = write_run(tmp_path / "s", "x" + str(score), seed, **{"method.name": method})
            write_completions(run, {"judge/mean": [score + seed / 100 + prompt / 1000 for prompt in range(-2, 3)]})
    return table(read_runs([tmp_path / "s"]))


def test_a_metric_without_values_of_single_completions_has_no_marks(tmp_path: Path) -> None:
    """Over seeds alone the luck of the shared prompts would pass for a difference."""
    for seed in range(1, 6):
        for method, accuracy in (("dpo", 0.9), ("sft", 0.5)):
            write_run(tmp_path / "s", method, seed, {"preference/accuracy": accuracy + seed / 1000})
    made = table(read_runs([tmp_path / "s"]))
    assert [cell.mark for row in made.rows for cell in row.cells] == [None, None]
    assert "Bold" not in made.caption


def test_latex_is_booktabs_and_escaped(tmp_path: Path) -> None:
    text = to_latex(an_ugly_table(tmp_path))
    body = [line for line in text.splitlines() if line.endswith(r" \\")]
    assert len(body) == 3
    for line in body:
        assert len(re.findall(r"(?<!\\)&", line)) == 2  # three columns
    bare = re.sub(r"\\([&%$#_{}]|[a-zA-Z]+)", "", "\n".join(line.removesuffix(r" \\") for line in body))
    assert not set("%$#_^~\\<>") & set(bare)
    assert bare.count("{") == bare.count("}") and bare.isascii()
    for rule in ("toprule", "midrule", "bottomrule"):
        assert text.count("\\" + rule) == 1
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    assert r"\textbf{1.03" in text and re.search(r"\\footnotesize Sweep s;.*\\par", text)  # printed under it


def test_latex_compiles(tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex")
    head, tail = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n", "\\end{document}\n"
    (tmp_path / "t.tex").write_text(head + to_latex(an_ugly_table(tmp_path)) + tail)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]


def test_every_character_of_a_caption_is_one_that_latex_reads() -> None:
    assert latex("−1 ± 2 – 3 < 4 × 5²").isascii()
    assert latex("a_b") == r"a\_b" and latex("\\") == r"\textbackslash{}"


# --------------------------------------------------------------------------------------------------------- command


def test_the_words_of_the_command() -> None:
    line = "table a --rows method,model b --metrics=judge/mean --format tex --out=x"
    assert parse(line.split()) == (
        "table",
        {
            "folders": [Path("a"), Path("b")],
            "rows": ["method", "model"],
            "columns": None,
            "metrics": ["judge/mean"],
            "format": "tex",
            "out": Path("x"),
        },
    )
    for words, message in (
        ([], "table: needs DIR, as in: prefsweep table"),
        (["a", "--row", "x"], r"no such flag of table \(nearest: --rows"),
        (["a", "--format", "pdf"], "--format: invalid choice: 'pdf'"),
        (["a", "--out"], "--out: expected one argument"),
    ):
        with pytest.raises(UserError, match=message):
            parse(["table", *words])


def test_a_format_goes_to_the_terminal_and_with_out_into_a_folder(tmp_path: Path) -> None:
    judged(tmp_path / "s", seeds=2)
    console = Console(file=io.StringIO(), width=40)
    assert table_of([tmp_path / "s"], {}, "csv", None, console) == []
    assert isinstance(console.file, io.StringIO)
    assert len(list(csv.DictReader(io.StringIO(console.file.getvalue())))) == 6
    written = table_of([tmp_path / "s"], {"metrics": ["judge/mean"]}, None, tmp_path / "out", console)
    assert {path.name for path in written} >= {"table.md", "table.tex", "table.csv"}


def test_a_rate_of_one_has_an_interval(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        write_completions(write_run(tmp_path / "s", "dpo", seed), {"judge/win_rate": [1.0] * 30})
    low, high = made(tmp_path / "s").rows[0].cells[0].interval or (math.nan, math.nan)
    assert high == 1.0 and 0.8 < low < 0.95


def test_what_varies_nowhere_has_no_interval(tmp_path: Path) -> None:
    """The base against itself wins one half by definition, and is at no KL."""
    values = {"judge/win_rate": [0.5] * 30, "kl/base": [0.0] * 30, "preference/accuracy": [0.5] * 30}
    write_completions(write_run(tmp_path / "s", "base", 1), values)
    made = table(read_runs([tmp_path / "s"]), list(values))
    assert made.lines()[0][1:-1] == ["0.500", "0.000", "0.500"] and "equal in all by definition" in made.caption


def test_a_bound_has_neither_interval_nor_mark(tmp_path: Path) -> None:
    for seed in range(1, 6):
        for method, share in (("dpo", 0.9), ("sft", 0.5)):
            write_run(tmp_path / "s", method, seed, {"frontier/efficiency": share + seed / 1000})
    made = table(read_runs([tmp_path / "s"]), ["frontier/efficiency"])
    assert [line[1] for line in made.lines("**{}**", "{}*")] == ["≤ 0.903", "≤ 0.503"]
    assert "≤ and ≥" in made.caption and "Student" not in made.caption
    assert r"\ensuremath{\leq} 0.903" in to_latex(made)


def test_a_score_that_is_nought_everywhere_is_no_rate(tmp_path: Path) -> None:
    write_completions(write_run(tmp_path / "s", "dpo", 1), {"text/rouge2": [0.0] * 9, "text/ended": [0.0] * 9})
    score, rate = (table(read_runs([tmp_path / "s"]), [name]).lines()[0][1] for name in ("text/rouge2", "text/ended"))
    assert score == "0.000" and rate.startswith("0.000 [0.000, 0.")
