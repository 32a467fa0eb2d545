"""The examples of docs/extending.md, written to a folder as they stand there and run: a package outside this one."""

import json
import re
import shlex
from pathlib import Path

import pytest

from workplace import SMALL, Workplace

PAGE = (Path(__file__).parents[1] / "docs/extending.md").read_text()
SMOKE = [word for word in SMALL if not word.startswith("dataset.")]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """The files of the page, and the metadata that installing its pyproject.toml would leave."""
    folder = tmp_path_factory.mktemp("lab")
    for path, content in re.findall(r"```\w+\n# (\S+\.\w+)\n(.*?)```", PAGE, flags=re.DOTALL):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    (folder / "mylab/__init__.py").touch()
    metadata = folder / "mylab-0.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mylab\nVersion: 0.1\n")
    project = (folder / "pyproject.toml").read_text()
    module = re.search(r'^mylab = "(.+)"', project, flags=re.MULTILINE)
    assert module and '[project.entry-points."prefsweep.stages"]' in project
    (metadata / "entry_points.txt").write_text(f"[prefsweep.stages]\nmylab = {module[1]}\n")
    rows = [f"What is {n} plus {n}?,It is {2 * n}.,Nobody knows what that may be." for n in range(80)]
    (folder / "notes.csv").write_text("\n".join(["question,better,worse", *rows]) + "\n")
    return Workplace(folder)


def command(start: str) -> list[str]:
    (line,) = re.findall(rf"^\$ prefsweep ({re.escape(start)}.*)$", PAGE, flags=re.MULTILINE)
    return shlex.split(line)


def run(lab: Workplace, *words: str) -> str:
    done = lab.command(*words, PYTHONPATH=f"{lab.folder}:{lab.environment['PYTHONPATH']}")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_stage_and_a_method_of_another_package_run(lab: Workplace) -> None:
    run(lab, *command("-cd conf method=wise-ft"), *SMALL, "tracking=off", "sweep=null")
    record = lab.single()
    assert (record["status"], record["config"]["method"]["name"]) == ("finished", "wise-ft")
    (stage,) = lab.stages("interpolate")
    assert json.loads((stage / "record.json").read_text())["metrics"]["alpha"] == 0.3
    run(lab, "export", str(next((lab.folder / "outputs/runs").iterdir())), "policy")
    assert (lab.folder / "policy/model.safetensors").is_file()
    refused = lab.command("-cd", "conf", "method=wise-ft", "stages.interpolate.alpah=1", PYTHONPATH=str(lab.folder))
    assert refused.returncode == 2 and "stages.interpolate.alpha" in refused.stderr
    refused = lab.command("-cd", "conf", "method=wise-ft", "stages.interpolate.alpha=2", PYTHONPATH=str(lab.folder))
    assert refused.returncode == 2 and "at most 1" in refused.stderr


def test_a_scorer_of_another_package_scores_a_text(lab: Workplace) -> None:
    assert re.search(r"score +-\d", run(lab, *command("-cd conf score brevity")))


def test_a_dataset_a_model_a_scorer_and_a_metric_of_another_package_run_together(lab: Workplace) -> None:
    run(lab, *command("-cd conf model=gpt2-mini"), *SMOKE, "tracking=off", "runtime.outputs=all")
    (path,) = (lab.folder / "all/runs").glob("*/run.json")
    record = json.loads(path.read_text())
    config = record["config"]
    names = (config["model"]["name"], config["dataset"]["name"], config["judge"]["name"])
    assert names == ("gpt2-mini", "notes", "brevity")
    assert 0 <= record["metrics"]["text/questions"] <= 1 and record["metrics"]["judge/words"] >= 0
