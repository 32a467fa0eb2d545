"""Small datasets of our own making, laid out like their hub repositories, each with every trap of the real one."""

import csv
import gzip
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefsweep.config.schema import HH_SUBSETS
from prefsweep.data.datasets.synthetic import preferences, reviews

NAMES = ("hh-rlhf", "ultrafeedback", "CulturalKaleidoscope", "imdb")
# What each part of a dataset holds beside its good rows, by the words of the tally; `in test` is train's alone.
TRAPS: dict[str, dict[str, int]] = {
    "hh-rlhf": {"prompts disagree": 1, "empty completions": 2, "equal completions": 1, "in test": 1},
    "ultrafeedback": {"ties": 2, "equal completions": 1, "empty completions": 1, "prompts disagree": 1, "in test": 1},
    "CulturalKaleidoscope": {"empty prompts": 1, "empty completions": 1, "equal completions": 1},
    "imdb": {"short": 2, "in test": 1},
}
Pair = tuple[str, str, str]  # a question, the better answer, the other


def write_dataset(name: str, folder: Path, rows: int = 48) -> Path:
    """`rows` good rows to train on (hh-rlhf: in each subset) and a third of that to test on, and the traps beside them.

    CulturalKaleidoscope has no test split: there, they are all in one file, two rows a question.
    """
    folder.mkdir(parents=True, exist_ok=True)
    WRITERS[name](folder, rows, rows // 3)
    return folder


def words(name: str, folder: Path) -> list[str]:
    """The command line's, for a dataset written by `write_dataset`: with splits that fit its size."""
    test = ["dataset.test=8"] if name == "CulturalKaleidoscope" else []
    return [f"dataset={name}", f"dataset.path={folder}", "dataset.validation=8", *test]


def pairs(count: int, seed: int) -> Iterator[Pair]:
    """Questions that differ, however many are drawn under whatever seed."""
    for number, row in enumerate(preferences(count, seed=seed, coherence=0.74, noise=0)):
        assert row.chosen and row.rejected
        yield f"How would you go on with {row.prompt!r}, number {seed}-{number}?", row.chosen, row.rejected


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") if path.suffix == ".gz" else path.open("w") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


# --------------------------------------------------------------------------------------------------------- hh-rlhf


def transcript(question: str, completion: str, *, turns: str = "") -> str:
    return f"\n\nHuman: {question}\n\nAssistant:{turns}{completion}"


TURNS = (
    "",
    " Gladly.\n\nHuman: Then do, please.\n\nAssistant:",
    " One moment.\n\nAssistant: Well, Human: is a word, and\nAssistant: is one too.\n\nHuman: So?\n\nAssistant:",
    " “Café”, naïve, 日本.\nHuman: no blank line before me.\n\nHuman: Ah.\n\nAssistant:",
)


def write_hh(folder: Path, rows: int, test_rows: int) -> None:
    for index, subset in enumerate(HH_SUBSETS):
        counts = {"test": test_rows, "train": rows}
        questions: dict[str, list[Pair]] = {
            part: list(pairs(count, seed=10 * index + len(part))) for part, count in counts.items()
        }
        for part, good in questions.items():
            records = [
                {
                    side: transcript(question, completion, turns=turns)
                    for side, completion in zip(SIDES, completions, strict=True)
                }
                for (question, *completions), turns in zip(good, itertools.cycle(TURNS), strict=False)
            ]
            first, better, worse = good[0]
            other = questions["test"][0]
            records[3:3] = [
                {"chosen": transcript(first, better), "rejected": transcript(first + "!", worse)},
                {"chosen": transcript(first, ""), "rejected": transcript(first, worse)},
                {"chosen": transcript(first, better), "rejected": transcript(first, " \n")},
                {"chosen": transcript(first, better), "rejected": transcript(first, better)},
            ]
            if part == "train":  # asked first as in a row of test, but with another turn after it
                turns = " Why?\n\nHuman: Just so.\n\nAssistant:"
                records.append(
                    {
                        side: transcript(other[0], completion, turns=turns)
                        for side, completion in zip(SIDES, other[1:], strict=True)
                    }
                )
            write_jsonl(folder / subset / f"{part}.jsonl.gz", records)


SIDES = ("chosen", "rejected")

# ---------------------------------------------------------------------------------------------------- ultrafeedback


def turn(role: str, content: str) -> dict[str, str]:
    return {"content": content, "role": role}


def preferred(prompt: list[dict[str, str]], better: str, worse: str, scores: tuple[float, float]) -> dict[str, Any]:
    completions = [[*prompt, turn("assistant", completion.strip())] for completion in (better, worse)]
    return {
        "prompt": prompt[-1]["content"],
        "prompt_id": "0" * 64,
        "chosen": completions[0],
        "rejected": completions[1],
        "messages": completions[0],
        "score_chosen": scores[0],
        "score_rejected": scores[1],
    }


def write_ultrafeedback(folder: Path, rows: int, test_rows: int) -> None:
    tested = list(pairs(test_rows, seed=51))
    for part, good in {"test": tested, "train": list(pairs(rows, seed=52))}.items():
        records = [
            preferred([turn("user", question)], better, worse, (8.5, 8.5 - 0.5 * (1 + index % 5)))
            for index, (question, better, worse) in enumerate(good)
        ]
        question, better, worse = good[0]
        prompt = [turn("user", question)]
        long = [turn("system", "Be brief."), turn("user", "Hello."), turn("assistant", "Hello!"), *prompt]
        records[1] = preferred(long, better, worse, (9.0, 3.0))
        records[3:3] = [
            preferred(prompt, better, worse, (7.0, 7.0)),
            preferred(prompt, better, worse, (6.5, 7.0)),
            preferred(prompt, better, better, (8.0, 7.0)),
            preferred(prompt, better, " ", (8.0, 1.0)),
            {**preferred(prompt, better, worse, (8.0, 1.0)), "rejected": [turn("user", "?"), turn("assistant", worse)]},
        ]
        if part == "train":
            records.append(preferred([turn("user", tested[3][0])], *tested[3][1:], (8.0, 4.0)))
        write_parquet(folder / f"data/{part}_prefs-00000-of-00001.parquet", records)


# ------------------------------------------------------------------------------------------ CulturalKaleidoscope, imdb


def write_kaleidoscope(folder: Path, rows: int, test_rows: int) -> None:
    good = list(pairs((rows + test_rows) // 2, seed=61))
    records = [
        pair
        for question, better, worse in good
        for pair in ((question, better, worse), (question, better + ' Yes, "so".\nReally.', worse))
    ]
    question, better, worse = good[0]
    records[3:3] = [("", better, worse), (question, better, ""), (question, better, better)]
    with (folder / "CulturalKaleidoscope_Preference.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", "Question", "More_Prefered", "Less_Prefered"])
        writer.writerows([number, *pair] for number, pair in enumerate(records))


def write_imdb(folder: Path, rows: int, test_rows: int) -> None:
    parts = {}
    for part, count, seed in (("test", test_rows, 71), ("train", rows, 72)):
        whole = reviews(3 * count, seed=seed, coherence=0.74)
        parts[part] = ["<br /><br />".join(whole[3 * index : 3 * index + 3]) for index in range(count)]
    parts["train"].append(parts["test"][1])
    for part, texts in parts.items():
        texts[3:3] = ["Too short.", "No more than two hundred characters." + "!" * 164]
        labels = [int(2 * index >= len(texts)) for index in range(len(texts))]  # sorted, as the real one
        write_parquet(
            folder / f"plain_text/{part}-00000-of-00001.parquet",
            [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)],
        )


WRITERS = {
    "hh-rlhf": write_hh,
    "ultrafeedback": write_ultrafeedback,
    "CulturalKaleidoscope": write_kaleidoscope,
    "imdb": write_imdb,
}
