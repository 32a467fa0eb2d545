"""The wheel alone, installed far from the checkout, says and composes everything that the checkout does."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Run by the venv's Python: every choice of every group, found in the conf/ that was installed.
COMPOSE_ALL = """
import sys
from pathlib import Path
import prefsweep
from prefsweep.config.compose import compose, composing, read_stage_file

print(prefsweep.__file__)
conf = prefsweep.config_folder()
print(conf)
Path("pairs.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}')
with composing():
    for file in sorted(conf.glob("*/*.yaml")):
        group, name = file.parent.name, file.stem
        if name.startswith("_"):
            continue
        key = "scorer@reward" if group == "scorer" else group
        if group == "stage":
            read_stage_file(name, None)
        else:
            needed = {"local": ["dataset.path=pairs.jsonl"], "hub": ["dataset.id=someone/pairs"]}
            compose([f"{key}={name}", *needed.get(name, [])])
        print(f"{group}/{file.name}")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the build leaves nothing in the checkout."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "-w", copy / "dist", copy], check=True)
    (built,) = (copy / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty venv with the wheel; the libraries are lent by this environment, the checkout is not."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, symlinks=True)
    python = folder / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*map(str, pip), str(wheel)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")  # a path, whose own .pth files are not read
    return python


def run(folder: Path, *words: str | Path) -> str:
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(words, cwd=folder, env={**clean, "COLUMNS": "160"}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def known_to_conf() -> set[str]:
    return {file.relative_to(ROOT / "conf").as_posix() for file in (ROOT / "conf").rglob("*.yaml")}


def test_the_wheel_holds_all_of_conf_and_of_the_package(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"prefsweep/conf/{name}" for name in known_to_conf()} <= names
    modules = {file.relative_to(ROOT / "src").as_posix() for file in (ROOT / "src").rglob("*.py")}
    assert modules | {"prefsweep/py.typed"} <= names
    assert not any(name.startswith(("tests", "conf/", "src/")) for name in names)


def test_the_installed_wheel_composes_every_choice_from_another_folder(python: Path, tmp_path: Path) -> None:
    file, conf, *composed = run(tmp_path, python, "-c", COMPOSE_ALL).splitlines()
    assert Path(file).is_relative_to(python.parents[1]) and Path(conf).is_relative_to(python.parents[1])
    expected = {name for name in known_to_conf() if "/" in name and not name.partition("/")[2].startswith("_")}
    assert set(composed) == expected


def test_the_installed_command_works_from_another_folder(python: Path, tmp_path: Path) -> None:
    command = python.parent / "prefsweep"
    assert "sft+dpo: " in run(tmp_path, command, "--help")
    assert "evaluate" in run(tmp_path, command, "runtime.dry_run=true")
    assert run(tmp_path, python, "-m", "prefsweep", "--version").startswith("prefsweep ")
    assert not list(tmp_path.iterdir())
