"""Each dataset from a folder in the hub's layout: what a row becomes, what is dropped and counted, how it is split."""

import csv
import dataclasses
import gzip
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hub_layout
from prefsweep.config.compose import compose, composing
from prefsweep.config.schema import HH_SUBSETS
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.sources import load, load_ranked, load_splits, pretraining_texts, release_splits
from prefsweep.data.splits import SPLITS
from prefsweep.data.tally import Examples, sentences
from prefsweep.data.views import encode_prompts
from prefsweep.errors import UserError
from prefsweep.jobs import dataset_summary
from prefsweep.jobs.job import Job, prepare, store_of
from prefsweep.pipeline.history import History
from prefsweep.pipeline.stage import Context
from prefsweep.stages import judging
from workplace import Workplace

Written = Callable[..., Path]


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The folder of a dataset; written once, so copy it before changing it."""
    folders: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in folders:
            folders[name] = hub_layout.write_dataset(name, tmp_path_factory.mktemp(name))
        return folders[name]

    return make


@pytest.fixture(scope="module", autouse=True)
def composed_at_once() -> Iterator[None]:
    with composing():
        yield


def configured(name: str, folder: Path, *words: str) -> Any:
    return compose([*hub_layout.words(name, folder), *words]).dataset


def splits(name: str, folder: Path, *words: str) -> dict[str, Examples]:
    """All rows, read anew: what another test has read of the same folder is released first."""
    release_splits()
    dataset = configured(name, folder, "dataset.share=null", *words)
    return {split: load(dataset, split) for split in SPLITS}


# --------------------------------------------------------------------------------------------------- what all share


@pytest.mark.parametrize("name", hub_layout.NAMES)
def test_every_row_is_kept_or_counted(name: str, written: Written) -> None:
    traps = {reason: count for reason, count in hub_layout.TRAPS[name].items() if reason != "in test"}
    for split, examples in splits(name, written(name)).items():
        wrong = {reason: count for reason, count in examples.tally.dropped.items() if not reason.startswith("in ")}
        assert wrong == traps
        assert examples.tally.remaining == len(examples) > 0
        assert examples.metrics()[f"data/{split}/kept"] == len(examples)
        assert sentences(examples.metrics()) == {split: str(examples.tally)}


@pytest.mark.parametrize("name", hub_layout.NAMES)
def test_no_group_lies_in_two_splits_and_no_row_is_lost(name: str, written: Written) -> None:
    by_split = splits(name, written(name))
    groups = {split: {example.group for example in examples} for split, examples in by_split.items()}
    assert not groups["train"] & groups["validation"] and not groups["train"] & groups["test"]
    assert not groups["validation"] & groups["test"]
    assert len(groups["validation"]) == 8
    ids = [example.id for examples in by_split.values() for example in examples]
    assert len(set(ids)) == len(ids)
    whole = {"hh-rlhf": 48 + 16, "ultrafeedback": 48 + 16, "CulturalKaleidoscope": 64, "imdb": 48 + 16}
    assert len(ids) == whole[name]


@pytest.mark.parametrize("name", hub_layout.NAMES)
def test_the_same_rows_in_the_same_order_each_time_and_others_with_another_seed(name: str, written: Written) -> None:
    first, again, other = (splits(name, written(name), f"dataset.seed={seed}") for seed in (0, 0, 1))
    assert all(list(first[split]) == list(again[split]) != list(other[split]) for split in SPLITS)


@pytest.mark.parametrize("name", hub_layout.NAMES)
def test_a_limit_is_a_sample_of_training_rows_that_a_larger_one_holds(name: str, written: Written) -> None:
    whole, large, small = (
        splits(name, written(name), f"dataset.max_train_samples={limit}") for limit in ("null", 20, 5)
    )
    assert (len(large["train"]), len(small["train"])) == (20, 5)
    assert small["train"][:] == large["train"][:5] == whole["train"][:5]
    assert small["train"].tally.dropped["over the maximum"] == len(whole["train"]) - 5
    assert small["validation"][:] == whole["validation"][:] and small["test"][:] == whole["test"][:]
    in_file = splits(name, written(name), "dataset.shuffle=false")["train"]
    assert sorted(example.id for example in in_file) == sorted(example.id for example in whole["train"])
    numbers = [int(example.id.rpartition("-")[2]) for example in in_file]
    assert numbers == sorted(numbers) != [int(example.id.rpartition("-")[2]) for example in whole["train"]]


@pytest.mark.parametrize("name", [*hub_layout.NAMES, "synthetic-reviews"])
def test_another_sample_of_training_rows_leaves_validation_and_test(name: str, written: Written) -> None:
    if name == "synthetic-reviews":
        forms = [compose([f"dataset.sample_seed={seed}", "dataset.size=40"]).dataset for seed in ("null", 1, 2)]
        plain, one, two = ({split: load(form, split) for split in SPLITS} for form in forms)
    else:
        words = [f"dataset.sample_seed={seed}" for seed in ("null", 1, 2)]
        plain, one, two = (splits(name, written(name), word, "dataset.max_train_samples=5") for word in words)
    for other in (one, two):
        assert other["validation"][:] == plain["validation"][:] and other["test"][:] == plain["test"][:]
        assert other["train"][:] != plain["train"][:]
    assert one["train"][:] != two["train"][:]


def test_the_worlds_limit_is_every_datasets() -> None:
    whole, few = (compose([f"dataset.max_train_samples={limit}", "dataset.size=40"]).dataset for limit in ("null", 7))
    assert load(few, "train")[:] == load(whole, "train")[:7]
    assert all(load(few, split)[:] == load(whole, split)[:] for split in ("validation", "test"))


def test_a_row_keeps_its_split_when_others_are_added(written: Written, tmp_path: Path) -> None:
    folder = shutil.copytree(written("imdb"), tmp_path / "imdb")
    before = {example.group for example in splits("imdb", folder)["validation"]}
    rows = [{"text": f"Another review, the number {number}. " + "x" * 200, "label": 0} for number in range(8)]
    (folder / "plain_text/train-00000-of-00001.parquet").rename(folder / "plain_text/train-00000-of-00002.parquet")
    hub_layout.write_parquet(folder / "plain_text/train-00001-of-00002.parquet", rows)
    after = {example.group for example in splits("imdb", folder)["validation"]}
    assert len(before & after) >= 5 and after - before <= {row["text"] for row in rows}


@pytest.mark.parametrize("name", hub_layout.NAMES)
def test_every_text_is_read_as_a_base_would(name: str, written: Written) -> None:
    texts = pretraining_texts(configured(name, written(name)))
    assert all(len(text) > 40 and "<br" not in text for text in texts)


# ------------------------------------------------------------------------------------------------------- each its own


def by_id(examples: Examples) -> dict[str, PreferenceExample]:
    return {example.id: example for example in examples}


def test_a_dialogue_parts_at_its_last_assistant(written: Written) -> None:
    folder = written("hh-rlhf")
    with gzip.open(folder / "harmless-base/train.jsonl.gz", "rt") as file:
        raw = [json.loads(line) for line in file]
    for example in splits("hh-rlhf", folder)["train"]:
        row = raw[int(example.id.rpartition("-")[2]) - 1]
        for side in ("chosen", "rejected"):
            completion = example.completion(side)
            assert example.prompt + completion == row[side]
            assert completion.startswith(" ") and "Assistant:" not in completion and completion.strip()
        assert example.prompt.endswith("\n\nAssistant:")
        assert example.group == row["chosen"].split("\n\n")[1].removeprefix("Human: ")
        assert example.kind == "harmful"


def test_subsets_are_read_alone_or_together(written: Written) -> None:
    folder = written("hh-rlhf")
    alone = {subset: splits("hh-rlhf", folder, f"dataset.subset={subset}") for subset in HH_SUBSETS}
    together = splits("hh-rlhf", folder, "dataset.subset=all")
    assert sorted(example.id for example in together["test"]) == sorted(
        example.id for by_split in alone.values() for example in by_split["test"]
    )
    assert together["train"].tally.read == sum(by_split["train"].tally.read for by_split in alone.values())
    kinds = {example.id.rpartition("-test-")[0]: example.kind for example in together["test"]}
    assert kinds == {subset: "harmful" if subset == "harmless-base" else "helpful" for subset in HH_SUBSETS}
    assert [example.id for example in together["test"][:16]] != [
        example.id for example in alone["harmless-base"]["test"]
    ]


def test_messages_become_plain_text(written: Written) -> None:
    by_split = splits("ultrafeedback", written("ultrafeedback"))
    conversation = by_id(Examples([*by_split["train"], *by_split["validation"]], by_split["train"].tally, "train"))[
        "train-2"
    ]
    assert conversation.prompt.startswith(
        "\n\nSystem: Be brief.\n\nHuman: Hello.\n\nAssistant: Hello!\n\nHuman: How would"
    )
    for example in by_split["train"]:
        assert example.prompt.endswith("?\n\nAssistant:") or example.prompt.endswith("\n\nAssistant:")
        assert all(
            example.completion(side)[:1] == " " != example.completion(side)[1:2] for side in ("chosen", "rejected")
        )


def test_surer_pairs_are_those_whose_scores_differ_more(written: Written) -> None:
    all_pairs, surer = (
        splits("ultrafeedback", written("ultrafeedback"), f"dataset.margin={margin}")["test"] for margin in (0, 1)
    )
    assert surer.tally.dropped["ties"] > all_pairs.tally.dropped["ties"] == 2
    assert {example.id for example in surer} < {example.id for example in all_pairs}


@pytest.mark.parametrize(
    "heading",
    [
        "Question,More_Prefered,Less_Prefered",
        "question,more_preferred,LESS_PREFERRED",
        "Less Prefered,Question,More Prefered",
    ],
)
def test_the_columns_of_kaleidoscope_in_any_spelling(heading: str, tmp_path: Path) -> None:
    names = heading.split(",")
    with (tmp_path / "any.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for number in range(30):
            row = {"q": f"Why {number}?", "m": 'Because, "so".\nYes.', "l": f"No {number}."}
            writer.writerow([row[name.lower()[0]] for name in names])
    example = splits("CulturalKaleidoscope", tmp_path)["train"][0]
    number = example.group.strip("Why ?")
    assert example == PreferenceExample(
        example.id, f"Why {number}?", f"User: Why {number}?\nAssistant:", ' Because, "so".\nYes.', f" No {number}."
    )


def test_a_prompt_of_imdb_is_a_reviews_first_tokens(written: Written, tokenizer: Any) -> None:
    dataset = configured("imdb", written("imdb"))
    for split in SPLITS:
        examples = load(dataset, split, tokenizer)
        lengths = [len(ids) for ids in encode_prompts([example.prompt for example in examples], tokenizer)]
        assert {2, 8} <= set(lengths) or split != "train"
        assert set(lengths) <= set(range(2, 9))
        for example, uncut in zip(examples, load(dataset, split), strict=True):
            assert example.prompt + example.completion("chosen") == example.group == uncut.chosen
            assert example.rejected is None and uncut.prompt == ""
            assert "<br" not in example.group and "  " not in example.group
    whole, limited = (
        load(configured("imdb", written("imdb"), f"dataset.max_train_samples={n}"), "train", tokenizer) for n in (30, 4)
    )
    assert limited[:] == whole[:4]  # where a review is divided depends on it alone


def test_a_few_words_tell_where_the_first_tokens_end(tokenizer: Any) -> None:
    from prefsweep.data.datasets.imdb import first_ends

    texts = ["  A review, of a plain film. " * 9, "x" * 400, "an" + "?!" * 90 + " odd one", "été 日本 " * 40, "short"]
    for text, ends in zip(texts, first_ends(texts, tokenizer, 8), strict=True):
        spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        assert ends == [end for _, end in spans[:8]]


def test_labelled_reviews_are_pairs_for_a_scorer(written: Written) -> None:
    """Each pair is a positive and a negative review of the same share; those of two shares have none in common."""
    texts, labels = {}, {}
    for split in SPLITS:
        examples = load(configured("imdb", written("imdb")), split)
        labels |= {example.chosen: example.label for example in examples}
        counts = Counter(example.label for example in examples)
        ranked = load_ranked(configured("imdb", written("imdb")), split)
        assert len(ranked) == min(counts[True], counts[False]) > 0
        assert all(labels[pair.chosen] is True and labels[pair.rejected] is False for pair in ranked)
        assert len({pair.id for pair in ranked}) == len(ranked) and {pair.prompt for pair in ranked} == {""}
    for share in ("[0,0.5]", "[0.5,1]"):
        dataset = configured("imdb", written("imdb"), f"dataset.share={share}")
        shared = load_ranked(dataset, "train")
        texts[share] = {text for pair in shared for text in (pair.chosen, pair.rejected)}
        assert texts[share] <= {example.chosen for example in load(dataset, "train")}
    assert not texts["[0,0.5]"] & texts["[0.5,1]"] and all(texts.values())
    hh = configured("hh-rlhf", written("hh-rlhf"))
    assert load_ranked(hh, "train")[:] == load(hh, "train")[:]


def test_no_label_is_read_where_a_policy_learns(written: Written, tmp_path: Path, tokenizer: Any) -> None:
    import pyarrow.parquet

    for file in written("imdb").rglob("*.parquet"):
        text_alone = pyarrow.parquet.read_table(file).drop_columns("label")
        (tmp_path / "plain_text").mkdir(exist_ok=True)
        pyarrow.parquet.write_table(text_alone, tmp_path / "plain_text" / file.name)
    for split in SPLITS:
        loaded = [load(configured("imdb", folder), split, tokenizer) for folder in (written("imdb"), tmp_path)]
        assert loaded[0][:] == loaded[1][:]
    made, folder = compose(["method=dpo"]), tmp_path / "accuracy"
    folder.mkdir()
    context = Context(made.runtime, folder, History(folder / "history.jsonl"))
    sections = {"dataset": configured("imdb", tmp_path), "judge": made.judge}
    metrics = judging.judge_accuracy(made.stages.judge_accuracy, **sections, folder=folder, context=context)
    assert metrics and not any(name.startswith("judge/") for name in metrics)  # no labels, no pairs


# -------------------------------------------------------------------------------------------- a file of one's own


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "csv", "parquet"])
def test_a_file_of_ones_own_in_every_format(ending: str, tmp_path: Path) -> None:
    rows = [{"prompt": f"Q{number}?", "chosen": ' é,\n"yes"', "rejected": " no"} for number in range(12)]
    path = tmp_path / f"mine.{ending}"
    if ending == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["prompt", "chosen", "rejected"])
            writer.writeheader()
            writer.writerows(rows)
    else:
        (hub_layout.write_parquet if ending == "parquet" else hub_layout.write_jsonl)(path, rows)
    by_split = splits("local", path, "dataset.test=2", "dataset.validation=3")
    assert {split: len(examples) for split, examples in by_split.items()} == {"train": 7, "validation": 3, "test": 2}
    assert {example.chosen for examples in by_split.values() for example in examples} == {' é,\n"yes"'}
    assert {example.prompt for examples in by_split.values() for example in examples} == {row["prompt"] for row in rows}


def test_prompts_alone_do_where_pairs_are_sampled(tmp_path: Path) -> None:
    hub_layout.write_jsonl(tmp_path / "p.jsonl", [{"prompt": f"Q{number}?"} for number in range(12)])
    sizes = ("dataset.test=2", "dataset.validation=3")
    by_split = splits("local", tmp_path / "p.jsonl", *sizes, "dataset.pairs=generated")
    assert {(example.chosen, example.rejected) for example in by_split["train"]} == {(None, None)}
    with pytest.raises(UserError, match="has no chosen completion, which this method learns from"):
        by_split["train"][0].completion("chosen")
    with pytest.raises(UserError, match=r"p\.jsonl, line 1: .* set dataset\.pairs=generated"):
        splits("local", tmp_path / "p.jsonl", *sizes)
    ppo = [*hub_layout.words("local", tmp_path / "p.jsonl"), *sizes, "dataset.pairs=generated", "method=ppo"]
    ppo.append(f"runtime.outputs={tmp_path / 'out'}")
    with pytest.raises(UserError, match="scorer@reward=trained: dataset=local has no pairs to train it on"):
        prepare(ppo, compose(ppo))
    judged = [*ppo, "scorer@reward=distilbert-imdb", "scorer@judge=trained", "dataset.share=[0,0.5]"]
    with pytest.raises(UserError, match="scorer@judge=trained: dataset=local has no pairs to train it on"):
        prepare(judged, compose(judged))
    assert prepare(ppo, compose([*ppo, "scorer@reward=distilbert-imdb"])).plan.used >= {"ppo", "generate"}


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_a_file_of_single_completions_with_a_label(ending: str, tmp_path: Path) -> None:
    spellings: list[Any] = {"jsonl": [True, 0, 1, False], "csv": ["TRUE", "0", "1", "false"], "parquet": [True, False]}[
        ending
    ]
    rows = [
        {"prompt": f"Q{number // 2}?", "completion": f" {number}", "label": spellings[number % len(spellings)]}
        for number in range(24)
    ]
    path = tmp_path / f"mine.{ending}"
    if ending == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["prompt", "completion", "label"])
            writer.writeheader()
            writer.writerows(rows)
    else:
        (hub_layout.write_parquet if ending == "parquet" else hub_layout.write_jsonl)(path, rows)
    sizes = ("dataset.test=2", "dataset.validation=3")
    by_split = splits("local", path, *sizes, "dataset.pairs=labelled")
    assert {split: len(examples) for split, examples in by_split.items()} == {"train": 14, "validation": 6, "test": 4}
    for example in (example for examples in by_split.values() for example in examples):
        index = int((example.chosen or example.rejected or "").strip())
        assert example.prompt == example.group == f"Q{index // 2}?"
        assert (example.chosen is None, example.rejected is None) == (
            (False, True) if index % 2 == 0 else (True, False)
        )
    with pytest.raises(UserError, match=r"line|row .* set dataset\.pairs=labelled for a file of labelled completions"):
        splits("local", path, *sizes)


def test_a_label_that_is_none_and_a_method_that_needs_pairs_are_one_line(tmp_path: Path) -> None:
    rows = [{"prompt": f"Q{number}?", "completion": " a", "label": number % 2} for number in range(12)]
    hub_layout.write_jsonl(tmp_path / "k.jsonl", [*rows, {"prompt": "Q?", "completion": " a", "label": "maybe"}])
    sizes = ("dataset.test=2", "dataset.validation=3", "dataset.pairs=labelled")
    with pytest.raises(UserError, match=r"k\.jsonl, line 13: its label must be true or false, or 1 or 0, not 'maybe'"):
        splits("local", tmp_path / "k.jsonl", *sizes)
    line = [*hub_layout.words("local", tmp_path / "k.jsonl"), *sizes, f"runtime.outputs={tmp_path / 'out'}"]
    for method, stage in (("dpo", "dpo"), ("ppo", "reward_model")):
        with pytest.raises(UserError, match=rf"^dataset\.pairs=labelled: stages\.{stage} .* set method=kto"):
            prepare(line, compose([*line, f"method={method}"]))


# ---------------------------------------------------------------------------------------------- read once a process

COUNTING = """
import sys
from collections import Counter
from prefsweep.data import files
counts, read = Counter(), files.read
def counted(paths):
    counts.update(f"{path.parent.name}/{path.name}" for path in paths)
    return read(paths)
files.read = counted
from prefsweep.__main__ import main
try:
    sys.exit(main())
finally:
    print("PARSED", sorted(counts.items()))
"""


def test_a_run_parses_each_file_once(written: Written, tmp_path: Path) -> None:
    workplace = Workplace(tmp_path)
    line = [*hub_layout.words("hh-rlhf", written("hh-rlhf")), "method=sft+dpo", "debug=smoke", "model=gpt2-tiny"]
    done = subprocess.run(
        [sys.executable, "-c", COUNTING, *line, "runtime=cpu", "tracking=off", "runtime.threads=1"],
        cwd=tmp_path,
        env={**os.environ, **workplace.environment},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    parsed = [("harmless-base/test.jsonl.gz", 1), ("harmless-base/train.jsonl.gz", 1)]
    assert done.stdout.splitlines()[-1] == f"PARSED {parsed}"


def test_what_was_read_is_read_again_once_a_file_has_changed_or_it_was_released(tmp_path: Path) -> None:
    def write(completion: str) -> Any:
        rows = [{"prompt": f"Q{number}?", "chosen": completion, "rejected": " no"} for number in range(12)]
        hub_layout.write_jsonl(tmp_path / "p.jsonl", rows)
        return configured("local", tmp_path / "p.jsonl", "dataset.test=2", "dataset.validation=3")

    first = load_splits(write(" yes"))
    assert load_splits(write(" yes, indeed"))["train"][0].chosen == " yes, indeed"
    dataset = write(" yes, indeed!")
    assert load_splits(dataset) is load_splits(dataset) is not first
    cut = load_splits(dataclasses.replace(dataset, max_train_samples=2))
    assert cut is load_splits(dataset)
    release_splits()
    assert load_splits(dataset) is not cut


def test_rows_are_held_in_less_memory_than_their_objects(written: Written) -> None:
    examples = splits("hh-rlhf", written("hh-rlhf"))["train"]
    objects = sum(
        sys.getsizeof(row) + sum(map(sys.getsizeof, (row.id, row.group, row.prompt, row.chosen, row.rejected)))
        for row in examples
    )
    assert sum(map(sys.getsizeof, examples.rows)) < 0.8 * objects


# ------------------------------------------------------------------------------------------- where the files may lie


def hh_rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize("shape", ["jsonl", "csv", "parquet", "bare jsonl.gz", "the subset itself"])
def test_a_folder_may_be_laid_out_in_several_ways(shape: str, written: Written, tmp_path: Path) -> None:
    theirs = written("hh-rlhf")
    folder = tmp_path / "harmless-base"
    folder.mkdir()
    ending = shape.split()[-1] if "jsonl" in shape else shape
    for part in ("train", "test"):
        rows = hh_rows(theirs / f"harmless-base/{part}.jsonl.gz")
        if shape == "csv":
            with (folder / f"{part}.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, ["chosen", "rejected"])
                writer.writeheader()
                writer.writerows(rows)
        elif shape == "parquet":
            hub_layout.write_parquet(folder / f"{part}-00000-of-00001.parquet", rows)
        else:
            hub_layout.write_jsonl(folder / f"{part}.{ending if 'jsonl' in shape else 'jsonl'}", rows)
    if shape == "bare jsonl.gz":
        folder = folder.rename(tmp_path / "anything")
    source = tmp_path if shape in ("jsonl", "csv", "parquet") else folder
    expected = splits("hh-rlhf", theirs)
    for split, examples in splits("hh-rlhf", source).items():
        texts = {(example.prompt, example.chosen, example.rejected) for example in examples}
        assert len(texts) == len(examples) == len(expected[split])
        if split == "test":
            assert texts == {(example.prompt, example.chosen, example.rejected) for example in expected[split]}


def identity(name: str, folder: Path, *words: str) -> str:
    overrides = [*hub_layout.words(name, folder), "method=sft", f"runtime.outputs={folder.parent / 'out'}", *words]
    job = prepare(overrides, compose(overrides))
    sent: Job = pickle.loads(pickle.dumps(job))  # as to the process of a job of a sweep
    return sent.plan.identity


def test_the_identity_is_the_content_of_the_files_that_are_read(written: Written, tmp_path: Path) -> None:
    here = shutil.copytree(written("hh-rlhf"), tmp_path / "here")
    first = identity("hh-rlhf", here)
    moved = here.rename(tmp_path / "there")
    assert identity("hh-rlhf", moved) == identity("hh-rlhf", moved / "harmless-base") == first
    assert identity("hh-rlhf", moved, f"dataset.path={moved}/") == first
    (moved / "README.md").write_text("Read me.")
    (moved / "helpful-base/train.jsonl.gz").unlink()
    assert identity("hh-rlhf", moved) == first
    hub_layout.write_jsonl(moved / "harmless-base/test.jsonl.gz", hh_rows(moved / "harmless-base/test.jsonl.gz")[1:])
    assert identity("hh-rlhf", moved) != first


# ------------------------------------------------------------------------------------ what cannot be read is one line


def broken(name: str, folder: Path, *words: str) -> str:
    with pytest.raises(UserError) as caught:
        splits(name, folder, *words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


GOOD = {"prompt": "a", "chosen": " b", "rejected": " c"}
BAD_LINES = [
    ("{", "line 2: not JSON"),
    ("[1]", "line 2: must be an object"),
    ('{"prompt": "a", "chosen": " b"}', "line 2: has no column rejected; there are: prompt, chosen"),
    ('{"prompt": "a", "chosen": " b", "rejectet": " c"}', "(nearest: rejectet)"),
    ('{"prompt": "a", "chosen": 3, "rejected": " c"}', "line 2: its chosen must be a text, not 3"),
    ('{"prompt": null, "chosen": " b", "rejected": " c"}', "line 2: its prompt must be a text, not None"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES)
def test_a_bad_line_is_named_by_file_and_number(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "my.jsonl").write_text(f"{json.dumps(GOOD)}\n{line}\n")
    complaint = broken("local", tmp_path / "my.jsonl", "dataset.test=1")
    assert complaint.startswith(f"{tmp_path / 'my.jsonl'}, line 2: ") and message in complaint


def test_files_that_are_no_such_files(tmp_path: Path) -> None:
    def error(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        return broken("local", tmp_path / name, "dataset.test=1").removeprefix(f"{tmp_path / name}")

    assert error("empty.jsonl", b"") == ": holds no rows"
    assert error("empty.csv", b"prompt,chosen,rejected\n") == ": holds no rows"
    assert error("short.csv", b"prompt,chosen,rejected\na,b\n").startswith(", line 2: has not the 3 columns")
    assert error("long.csv", b"prompt,chosen,rejected\na,b,c,d\n").startswith(", line 2: has not the 3 columns")
    assert "cannot be read as .csv (unexpected end of data)" in error("open.csv", b'prompt,chosen,rejected\n"a,b,c\n')
    assert error("latin.jsonl", b'{"prompt": "\xe9"}\n').startswith(", after line 0: is not utf-8")
    assert error("cut.jsonl.gz", gzip.compress(b'{"prompt": "a"}\n' * 99)[:-9]).startswith(", line 1: has neither")
    assert error("not.jsonl.gz", b'{"prompt": "a"}\n').startswith(
        ", after line 0: cannot be read as .jsonl.gz (Not a gzipped"
    )
    assert error("not.parquet", b"PAR1").startswith(", after row 0: cannot be read as .parquet (")
    assert error("my.txt", b"a").startswith(": is of no known format; it must end in one of .jsonl.gz, .jsonl, .csv")
    assert error("few.jsonl", f"{json.dumps(GOOD)}\n".encode()).startswith("dataset=local: has 1 prompts (kept 1 of 1)")


def test_a_folder_that_lacks_a_file_or_has_two_in_its_place(written: Written, tmp_path: Path) -> None:
    hh = shutil.copytree(written("hh-rlhf"), tmp_path / "hh")
    (hh / "helpful-base/test.jsonl.gz").unlink()
    assert "holds no helpful-base/test (.jsonl.gz, .jsonl" in broken("hh-rlhf", hh, "dataset.subset=all")
    assert "is the subset helpful-base; set dataset.subset" in broken("hh-rlhf", hh / "helpful-base")
    assert "set the folder" in broken("hh-rlhf", hh / "harmless-base/train.jsonl.gz")
    hub_layout.write_jsonl(hh / "harmless-base/train.jsonl", [{}])
    assert "holds both train.jsonl and train.jsonl.gz; leave one" in broken("hh-rlhf", hh)
    imdb = shutil.copytree(written("imdb"), tmp_path / "imdb")
    (imdb / "plain_text/test-00000-of-00001.parquet").rename(imdb / "plain_text/test-00000-of-00002.parquet")
    assert "holds 1 of the 2 files of test-00000-of-00002.parquet" in broken("imdb", imdb)
    (tmp_path / "nothing").mkdir()
    assert "holds no file of rows (.jsonl.gz" in broken("CulturalKaleidoscope", tmp_path / "nothing")


def test_rows_that_are_not_what_the_dataset_says(written: Written, tmp_path: Path) -> None:
    rows = [{"chosen": "no turns", "rejected": "no turns"}]
    for part in ("train", "test"):
        hub_layout.write_jsonl(tmp_path / f"{part}.jsonl", rows)
        hub_layout.write_jsonl(tmp_path / f"{part}_prefs.jsonl", rows)
    assert broken("hh-rlhf", tmp_path).startswith(
        "dataset=hh-rlhf: nothing is left of its train split: kept 0 of 1: 1 prompts"
    )
    assert "_prefs.jsonl, line 1: its chosen must be messages with role" in broken("ultrafeedback", tmp_path)
    assert "line 1: has no column text" in broken("imdb", tmp_path)
    (tmp_path / "cultural.csv").write_text("Question,More_Liked,Less\na,b,c\n")
    complaint = broken("CulturalKaleidoscope", tmp_path / "cultural.csv")
    assert (
        "line 2: has no column More_Prefered (nearest: More_Liked); there are: Question, More_Liked, Less" in complaint
    )
    complaint = broken("hh-rlhf", written("hh-rlhf"), "dataset.validation=48")
    assert complaint.startswith(
        "dataset.validation=48: leaves nothing to train on; train has 48 prompts (kept 48 of 53: "
    )


BAD_ENDS = {
    "column": (
        '{"prompt": "a", "chosen": " b", "rejectet": " c"}\n',
        "line 41: has no column rejected (nearest: rejectet)",
    ),
    "line": ("{oops\n", "line 41: not JSON"),
    "type": ('{"prompt": "a", "chosen": 3, "rejected": " c"}\n', "line 41: its chosen must be a text, not 3"),
    "prompts": (
        "".join(f'{{"prompt": "P{n}"}}\n' for n in range(40)),
        "has no chosen completion, which this method learns",
    ),
    "few": (None, "leave none to train on"),
    "empty": (None, "holds no rows"),
}


@pytest.mark.parametrize("kind", BAD_ENDS)
def test_a_command_over_bad_data_ends_in_one_line_before_anything_is_built(kind: str, tmp_path: Path) -> None:
    """The base's answers and the judge read the test split alone, and would come first."""
    end, message = BAD_ENDS[kind]
    good = "".join(json.dumps(GOOD | {"prompt": f"Q{number}"}) + "\n" for number in range(0 if kind == "empty" else 40))
    (tmp_path / "my.jsonl").write_text(good + (end or ""))
    sizes = ("dataset.test=10", f"dataset.validation={30 if kind == 'few' else 10}")
    workplace = Workplace(tmp_path)
    method = ("method=sft", "dataset.pairs=generated") if kind == "prompts" else ("method=dpo",)
    small = ("debug=smoke", "tracking=off", "runtime=cpu")
    done = workplace.command("dataset=local", "dataset.path=my.jsonl", *sizes, *method, *small)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr and ("my" in done.stderr or kind == "few")
    assert "building" not in done.stdout and not list(tmp_path.glob("outputs/stages/*/*/record.json"))
    assert workplace.single()["status"] == "failed"


# --------------------------------------------------------------------------------------------- what a plan says of it


def test_what_no_stage_has_read_is_read_and_reported_first(written: Written, tmp_path: Path) -> None:
    def validate(*words: str) -> list[str]:
        overrides = [*hub_layout.words("hh-rlhf", written("hh-rlhf")), f"runtime.outputs={tmp_path}", *words]
        job = prepare(overrides, compose(overrides))
        return list(dataset_summary.validate_datasets(job.plan.stages, store_of(job.config.runtime)))

    assert validate("method=base", "model=gpt2") == [
        "hh-rlhf: test kept 16 of 20: 1 prompts disagree, 2 empty completions, 1 equal completions"
    ]
    (line,) = validate("method=sft", "dataset.max_train_samples=9")
    assert line.startswith("hh-rlhf: train kept 9 of 53: ") and "; test kept 16 of 20: " in line


def test_a_plan_says_what_was_kept_once_a_stage_has_read_it(written: Written, tmp_path: Path) -> None:
    overrides = [*hub_layout.words("hh-rlhf", written("hh-rlhf")), "method=sft", f"runtime.outputs={tmp_path}"]
    job = prepare(overrides, compose(overrides))
    another = prepare([], compose([*overrides, "dataset.max_train_samples=9"]))
    store = store_of(job.config.runtime)
    assert list(dataset_summary.lines(job.plan.stages, store)) == ["hh-rlhf: not read yet"]
    stages = {stage.role: stage for stage in job.plan.stages}
    for role, split in (("sft", "train"), ("generate/base", "test")):
        counts = load(job.config.dataset, split).metrics()
        store.build(stages[role], lambda _, counts=counts: counts)
    assert list(dataset_summary.validate_datasets(job.plan.stages, store)) == []
    assert list(dataset_summary.lines(job.plan.stages, store)) == [
        "hh-rlhf: train kept 40 of 53: 1 prompts disagree, 2 empty completions, 1 equal completions, 1 in test, 8 in "
        "validation; test kept 16 of 20: 1 prompts disagree, 2 empty completions, 1 equal completions"
    ]
    (line,) = dataset_summary.lines(another.plan.stages, store)
    assert line.startswith("hh-rlhf: test kept 16 of 20: "), "what evaluates reads the same rows under any limit"


# --------------------------------------------------------------------------------------- any dataset of the hub


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


QUESTION, ANSWER, OTHER = "Why is the sky blue?", "It scatters.", "It is not."
FORMS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "texts": ({"prompt": QUESTION, "chosen": ANSWER, "rejected": OTHER}, ()),
    "other columns": (
        {"question": QUESTION, "better": ANSWER, "worse": OTHER},
        ("dataset.columns={prompt:question,chosen:better,rejected:worse}",),
    ),
    "messages": (
        {
            "prompt": [turn("user", QUESTION)],
            "chosen": [turn("assistant", ANSWER)],
            "rejected": [turn("assistant", OTHER)],
        },
        (),
    ),
    "messages behind a text": (
        {"prompt": QUESTION, "chosen": [turn("assistant", ANSWER)], "rejected": [turn("assistant", OTHER)]},
        (),
    ),
    "whole dialogues": (
        {
            side: [turn("user", QUESTION), turn("assistant", text)]
            for side, text in (("chosen", ANSWER), ("rejected", OTHER))
        },
        ("dataset.columns.prompt=null",),
    ),
    "whole dialogues beside their prompt": (
        {
            "prompt": QUESTION,
            **{
                side: [turn("user", QUESTION), turn("assistant", text)]
                for side, text in (("chosen", ANSWER), ("rejected", OTHER))
            },
        },
        (),
    ),
}


def hub_pairs(folder: Path, row: dict[str, Any], *words: str) -> dict[str, Examples]:
    """The splits of a repository with nine rows like this one, of which two are test and two validation."""
    release_splits()
    (folder / "data").mkdir(exist_ok=True)
    rows = [json.loads(json.dumps(row).replace("sky", f"sky {number}")) for number in range(9)]
    hub_layout.write_jsonl(folder / "data/train.jsonl", rows)
    sizes = ("dataset.test=2", "dataset.validation=2", "scorer@judge=trained", "dataset.share=null")
    dataset = compose(["dataset=hub", "dataset.id=me/mine", f"dataset.path={folder}", *sizes, *words]).dataset
    return {split: load(dataset, split) for split in SPLITS}


@pytest.mark.parametrize("form", FORMS)
def test_pairs_in_each_form_that_the_hub_has_are_one_dialogue(form: str, tmp_path: Path) -> None:
    row, words = FORMS[form]
    examples = hub_pairs(tmp_path, row, *words)
    assert {split: len(rows) for split, rows in examples.items()} == {"train": 5, "validation": 2, "test": 2}
    for example in examples["train"]:
        number = next(digit for digit in example.prompt if digit.isdigit())
        question = QUESTION.replace("sky", f"sky {number}")
        assert example.prompt == example.group == f"\n\nHuman: {question}\n\nAssistant:"
        assert (example.chosen, example.rejected) == (f" {ANSWER}", f" {OTHER}")


def test_a_dialogue_of_several_turns_and_its_system_prompt_are_read_whole(tmp_path: Path) -> None:
    turns = [
        turn("system", "Be brief."),
        turn("user", "Hello sky."),
        turn("assistant", "Hello!"),
        turn("user", QUESTION),
    ]
    row = {"prompt": turns, "chosen": [turn("assistant", ANSWER)], "rejected": [turn("assistant", OTHER)]}
    (prompt,) = {example.prompt.replace("sky 0", "sky") for example in hub_pairs(tmp_path, row)["train"][:1]} or {""}
    assert prompt.startswith("\n\nSystem: Be brief.\n\nHuman: Hello sky")
    assert prompt.endswith("\n\nAssistant:") and prompt.count("\n\nAssistant:") == 2


def test_plain_texts_of_the_hub_stay_as_they_are(tmp_path: Path) -> None:
    row = {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}
    examples = hub_pairs(tmp_path, row, "dataset.format=plain")["train"]
    assert {(example.chosen, example.rejected) for example in examples} == {(" blue.", " green.")}
    assert all(example.prompt.startswith("The sky ") and example.prompt.endswith(" is") for example in examples)


def test_a_hub_dataset_that_cannot_be_read_ends_in_one_line(tmp_path: Path) -> None:
    row = FORMS["texts"][0]
    with pytest.raises(UserError, match=r"line 1: has no column better; there are: prompt, chosen, rejected"):
        hub_pairs(tmp_path, row, "dataset.columns.chosen=better")
    with pytest.raises(UserError, match="its chosen is a text, so the prompt needs a column"):
        hub_pairs(tmp_path, row, "dataset.columns.prompt=null")
    with pytest.raises(UserError, match="holds no data/test"):
        hub_pairs(tmp_path, row, "dataset.test_file=data/test")
    with pytest.raises(UserError, match=r"dataset\.columns\.promt.*nearest: dataset\.columns\.prompt"):
        hub_pairs(tmp_path, row, "dataset.columns.promt=question")
