"""The classic notebook's recipe: what it says, that it runs, and its table of answers before and after."""

import csv
import json
import statistics
from pathlib import Path

import pytest

from hub_layout import write_dataset
from prefsweep.config.compose import compose, composing
from prefsweep.jobs.before_after import Pair, cell, to_markdown
from workplace import Workplace


def test_it_is_the_recipe() -> None:
    """The values as published; the ranges with their upper ends left out, as its sampler does."""
    with composing():
        config = compose(["experiment=gpt2-imdb-ppo"])
    ppo = config.stages.ppo
    assert (config.model.id, config.dataset.query_tokens, ppo.response_tokens) == ("lvwerra/gpt2-imdb", [2, 7], [4, 15])
    assert (ppo.learning_rate, ppo.batch_size, ppo.epochs, ppo.iterations) == (1.41e-5, 128, 4, 194)
    assert (ppo.kl_coef, ppo.adaptive_kl_target, ppo.adaptive_kl_horizon) == (0.2, 6, 10000)
    assert (ppo.gamma, ppo.gae_lambda, ppo.vf_coef) == (1, 0.95, 0.1)
    assert (ppo.clip_range, ppo.clip_range_value, ppo.temperature) == (0.2, 0.2, 1)
    assert config.reward.id == "lvwerra/distilbert-imdb"
    assert (config.reward.label, config.reward.output) == ("POSITIVE", "logit")
    assert 24_895 - config.dataset.validation == ppo.iterations * ppo.batch_size  # one pass


@pytest.mark.experiment
def test_it_runs_and_shows_answers_before_and_after(tmp_path: Path) -> None:
    workplace = Workplace(tmp_path)
    imdb = write_dataset("imdb", tmp_path / "imdb")
    small = ("debug=smoke", "runtime=cpu", "runtime.threads=1", f"dataset.path={imdb}", "dataset.validation=8")
    done = workplace.command("experiment=gpt2-imdb-ppo", "grid=[{seed: [1]}]", "stages.ppo.learning_rate=.01", *small)
    assert done.returncode == 0, done.stderr
    (run,) = workplace.jobs("gpt2-imdb-ppo").values()
    (folder,) = (path.parent for path in (tmp_path / "multirun_sweeps/gpt2-imdb-ppo").glob("*/run.json"))
    assert "TRL's notebook" in (folder.parent / "table.csv").read_text()
    with (folder / "before_after.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    after = [float(row["score_after"]) for row in rows]
    assert statistics.fmean(after) == pytest.approx(run["metrics"]["judge/mean"])
    before = [float(row["score_before"]) for row in rows]
    assert statistics.fmean(before) == pytest.approx(run["metrics"]["judge/start_mean"])
    assert any(row["before"] != row["after"] for row in rows)
    shown = (folder / "before_after.md").read_text()
    assert f"| **median of 8** |  | {statistics.median(before):.3f}".replace("-", "−") in shown
    history = (workplace.stages("ppo")[0] / "history.jsonl").read_text().splitlines()
    assert json.loads(history[0])["ratio/first"] == 1


def test_the_readable_table_holds_the_first_rows_and_sums_up_all() -> None:
    pairs = [Pair(f"p{n}", "a | b\n c", float(-n), "d", float(n)) for n in range(20)]
    lines = to_markdown(pairs).splitlines()
    assert len(lines) == 2 + 16 + 2
    assert lines[3] == "| p1 | a \\| b c | −1.000 | d | 1.000 |"
    assert lines[-2:] == ["| **mean of 20** |  | −9.500 |  | 9.500 |", "| **median of 20** |  | −9.500 |  | 9.500 |"]
    assert cell(" x\t|y ") == "x \\|y"
