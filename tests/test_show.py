"""prefsweep show: what it prints of a dataset, against the dataset."""

import json
import subprocess
from pathlib import Path

import pytest

from hub_layout import NAMES, TRAPS, words, write_dataset
from prefsweep.__main__ import dispatch
from prefsweep.cli.preview import histogram
from prefsweep.errors import UserError
from workplace import Workplace


def shown(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return Workplace(folder).command("show", *words)


def test_a_dataset_is_shown_as_the_model_reads_it(tmp_path: Path, model_folders: dict[str, Path]) -> None:
    rows = [{"prompt": f"Scene {n % 30} was", "chosen": " witty.", "rejected": " dull."} for n in range(60)]
    rows[7] |= {"prompt": "A long scene was " + "long " * 40, "chosen": "very " * 60 + "good."}
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = (
        "dataset=local",
        "dataset.path=mine.jsonl",
        "dataset.validation=1",
        "dataset.test=1",
        "dataset.shuffle=false",
    )
    model = ("model=gpt2", f"model.path={model_folders['gpt2']}", "model.max_length=64")
    done = shown(*data, *model, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "[[ witty.<|endoftext|>]]" in done.stdout and "[[ dull.<|endoftext|>]]" in done.stdout
    assert "kept 56 of 60" in done.stdout
    assert "completions cut at their end" in done.stdout
    assert "boundaries that merge " in done.stdout
    assert "whole rows occur again" in done.stdout and "#" * 40 in done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_each_dataset_of_the_hub_is_shown(name: str, tmp_path: Path, model_folders: dict[str, Path]) -> None:
    """A folder in the layout of the hub, with its traps: what was dropped is printed, with the reason."""
    data = words(name, write_dataset(name, tmp_path / "data"))
    done = shown(*data, "model=gpt2", f"model.path={model_folders['gpt2']}", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{name} train:" in done.stdout and "<|endoftext|>]]" in done.stdout
    for reason, count in TRAPS[name].items():
        assert f"{count} {reason}" in done.stdout


def test_the_world_is_shown_with_the_tokenizer_its_base_would_learn(tmp_path: Path) -> None:
    small = ("dataset.pretraining=300", "dataset.size=20", "dataset.validation=5", "dataset.test=5")
    done = shown("test", *small, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "synthetic-reviews test: 5 rows" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], r"^trian: not key=value and not a split \(nearest: train\)"),
        (["train", "test"], "^show: one split at a time"),
    ],
)
def test_what_show_cannot_read_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        dispatch(["show", *words])


def test_a_bad_key_is_one_line(tmp_path: Path) -> None:
    done = shown("datasett=imdb", folder=tmp_path)
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1


def test_every_row_is_in_one_bar() -> None:
    lengths = [3, 3, 4, 17, 90, 103]
    lines = list(histogram(lengths))
    assert sum(int(line.split("#")[0].split()[-1]) for line in lines) == len(lengths)
    assert lines[0].endswith("#" * 40) and len(list(histogram([5, 5]))) == 1
