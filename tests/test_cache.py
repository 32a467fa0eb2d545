"""Tokenised rows on disk: the same as those in memory, written once; what is damaged is written again."""

import multiprocessing
import shutil
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from prefsweep.data import cache as caches
from prefsweep.data.cache import RECORD, ROWS, Cache, Columns
from prefsweep.data.datasets.synthetic import preferences
from prefsweep.data.truncation import Truncation
from prefsweep.data.views import completion_rows, pair_rows, text_rows

EXAMPLES = preferences(30, seed=4, coherence=0.74, noise=0.0)


def entries(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize("batch_size", [7, 1000])
def test_cached_rows_are_those_made_in_memory(
    batch_size: int, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = pair_rows(EXAMPLES, tokenizer, 40)
    monkeypatch.setattr(caches, "BATCH_SIZE", batch_size)
    for _ in range(2):  # written, then read
        rows, cut = pair_rows(EXAMPLES, tokenizer, 40, Cache(tmp_path))
        assert rows.to_list() == expected[0].to_list() and cut == expected[1] and cut.completions
    assert len(entries(tmp_path)) == 1


def test_they_are_mapped_and_made_once(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = pair_rows(EXAMPLES, tokenizer, 96, Cache(tmp_path))
    monkeypatch.setattr(Cache, "batches", None)
    allocated = pa.total_allocated_bytes()
    second, _ = pair_rows(EXAMPLES, tokenizer, 96, Cache(tmp_path))
    assert pa.total_allocated_bytes() - allocated < 1024
    for rows in (first, second):
        assert [Path(file["filename"]).name for file in rows.cache_files] == [ROWS]


def test_what_changes_the_rows_changes_the_name(tokenizer: Any, tmp_path: Path) -> None:
    other = deepcopy(tokenizer)
    other.add_tokens(["witty"])
    changed = [replace(EXAMPLES[0], chosen=(EXAMPLES[0].chosen or "") + "!"), *EXAMPLES[1:]]
    store = Cache(tmp_path)
    pair_rows(EXAMPLES, tokenizer, 96, store)
    pair_rows(EXAMPLES, tokenizer, 95, store)
    pair_rows(EXAMPLES, other, 96, store)
    pair_rows(changed, tokenizer, 96, store)
    pair_rows(EXAMPLES[1:], tokenizer, 96, store)
    for completion_only_loss in (True, False):
        completion_rows(EXAMPLES, tokenizer, 96, completion_only_loss, store)
    text_rows([row.prompt for row in EXAMPLES], tokenizer, 96, store)
    assert len(entries(tmp_path)) == 8
    tokenizer(["a", "b b"], padding=True, truncation=True, max_length=2)  # what one call asks for is no other tokenizer
    pair_rows([replace(row, id="x", group="y") for row in EXAMPLES], tokenizer, 96, store)
    assert len(entries(tmp_path)) == 8


def test_no_two_texts_run_into_one(tokenizer: Any) -> None:
    one, other, *_ = EXAMPLES
    rows = [
        [replace(one, prompt="ab", chosen="c")],
        [replace(one, prompt="a", chosen="bc")],
        [one, other],
        [other, one],
    ]
    rows += [[replace(one, chosen="")], [replace(one, chosen=None)]]
    assert len({caches.hash_of(row) for row in rows}) == len(rows)


@pytest.mark.parametrize("harm", ["cut", "changed", "record", "empty", "no rows"])
def test_what_is_damaged_is_made_again(harm: str, tokenizer: Any, tmp_path: Path) -> None:
    expected, _ = pair_rows(EXAMPLES, tokenizer, 96, Cache(tmp_path))
    wanted = expected.to_list()
    (folder,) = entries(tmp_path)
    bytes_before = (folder / ROWS).read_bytes()
    time.sleep(0.01)
    if harm == "cut":
        (folder / ROWS).write_bytes(bytes_before[: len(bytes_before) // 2])
    elif harm == "changed":
        (folder / ROWS).write_bytes(bytes_before[:-100] + bytes(byte ^ 1 for byte in bytes_before[-100:]))
    elif harm == "record":
        (folder / RECORD).write_text('{"sha256":')
    elif harm == "empty":
        shutil.rmtree(folder)
        folder.mkdir()
    else:
        (folder / ROWS).unlink()
    del expected
    rows, cut = pair_rows(EXAMPLES, tokenizer, 96, Cache(tmp_path))
    assert rows.to_list() == wanted and cut.rows == len(EXAMPLES)
    assert (folder / ROWS).read_bytes() == bytes_before


def test_a_build_that_died_leaves_nothing_to_read(tokenizer: Any, tmp_path: Path) -> None:
    def dying(part: Sequence[str], cut: Truncation) -> Columns:
        raise RuntimeError("killed")

    texts = ["one", "two"]
    with pytest.raises(RuntimeError, match="killed"):
        Cache(tmp_path).rows({"name": "toy"}, texts, tokenizer, dying)
    assert not entries(tmp_path)
    rows, _ = Cache(tmp_path).rows({"name": "toy"}, texts, tokenizer, lambda part, cut: {"ids": [[1]] * len(part)})
    assert len(rows) == 2 and len(entries(tmp_path)) == 1


def made_slowly(folder: Path, tokenizer: Any) -> None:
    def make(part: Sequence[str], cut: Truncation) -> Columns:
        with (folder / "diary").open("a") as diary:
            diary.write("made\n")
        time.sleep(0.5)
        return {"ids": tokenizer(list(part))["input_ids"]}

    rows, _ = Cache(folder / "rows").rows({"name": "toy"}, ["one", "two"], tokenizer, make)
    assert len(rows) == 2


def test_two_processes_at_once_make_them_once(tokenizer: Any, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=made_slowly, args=(tmp_path, tokenizer)) for _ in "ab"]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert (tmp_path / "diary").read_text() == "made\n"
