"""The learned reward beside another scorer's: what the script of the PPO page reads and says."""

import json
import subprocess
import sys
from pathlib import Path

from prefsweep.data.datasets.synthetic import true_reward

SCRIPT = Path(__file__).parents[1] / "benchmarks/over_optimisation.py"
PROMPT = "The actor handled the climax beautifully, and"
COMPLETIONS = {4: [" the score was witty.", " it"], 8: [" the score was witty.", " the score was witty."]}


def test_the_answers_of_each_validation_are_read_by_another_scorer(tmp_path: Path) -> None:
    for name, kl_coef in (("b", 0.02), ("a", 0.0)):
        run, stage = tmp_path / "sweep" / name, tmp_path / "outputs/stages/ppo" / name
        run.mkdir(parents=True)
        stage.mkdir(parents=True)
        config = {"runtime": {"outputs": str(tmp_path / "outputs")}, "stages": {"ppo": {"kl_coef": kl_coef}}}
        record = {"status": "finished", "config": config, "stages": {"ppo": name}}
        (run / "run.json").write_text(json.dumps(record))
        rows = [
            {"step": step, "prompt": PROMPT, "completion": completion, "ended": True, "score": step + kl_coef}
            for step, completions in COMPLETIONS.items()
            for completion in completions
        ]
        (stage / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        history = [
            {"step": step, **news} for step in COMPLETIONS for news in ({"kl": 9.0}, {"validation/kl": 2.0 * step})
        ]
        (stage / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history))
    (tmp_path / "sweep/c").mkdir()
    (tmp_path / "sweep/c/run.json").write_text(json.dumps({"status": "running"}))
    picture = tmp_path / "picture.png"
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "sweep", picture], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()]
    assert lines[0][:5] == ["iteration", *(f"kl_coef 0: {name}" for name in ("learned", "score", "well_formed", "KL"))]
    for line, (step, completions) in zip(lines[2:], COMPLETIONS.items(), strict=True):
        true = sum(true_reward(PROMPT + completion) for completion in completions) / 2
        assert line[:3] == [str(step), f"{step:.2f}", f"{true:.2f}"]
        assert line[4:6] == [f"{2 * step}", f"{step + 0.02:.2f}"]
    assert lines[2][2] != lines[3][2]
    assert picture.stat().st_size > 1000
