"""Completions of the same prompts before and after training, by a method's start and by its result, and their scores.

Both are sampled with the same random numbers: where the policies agree, so do their completions.
"""

import csv
import io
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import fmean, median

from prefsweep.pipeline.files import read_jsonl, write_text

SHOWN = 16  # rows of the readable table; the csv has all


@dataclass(frozen=True)
class Pair:
    prompt: str
    before: str
    score_before: float
    after: str
    score_after: float


COLUMNS = tuple(field.name for field in fields(Pair))


def read_pairs(start: Path, result: Path) -> list[Pair]:
    """Return the pairs of two files of scored completions, in the result's order, by prompt and sample number."""
    before = {(row["id"], row["sample"]): row for row in read_jsonl(start)}
    pairs = []
    for row in read_jsonl(result):
        first = before[row["id"], row["sample"]]
        scores = first["scores"]["score"], row["scores"]["score"]
        pairs.append(Pair(row["prompt"], first["completion"], scores[0], row["completion"], scores[1]))
    return pairs


def write_before_after(pairs: list[Pair], folder: Path) -> None:
    write_text(folder / "before_after.md", to_markdown(pairs))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *map(astuple, pairs)])
    write_text(folder / "before_after.csv", text.getvalue())


def to_markdown(pairs: list[Pair]) -> str:
    """Return a table of the first rows, and the mean and median of all."""
    before, after = [pair.score_before for pair in pairs], [pair.score_after for pair in pairs]
    summaries = [
        Pair(f"**{name} of {len(pairs)}**", "", statistic(before), "", statistic(after))
        for name, statistic in (("mean", fmean), ("median", median))
    ]
    rows = [["prompt", "before", "score", "after", "score"], [":--", ":--", "--:", ":--", "--:"]]
    rows += [list(map(cell, astuple(pair))) for pair in [*pairs[:SHOWN], *summaries]]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def cell(value: str | float) -> str:
    if isinstance(value, str):
        return " ".join(value.split()).replace("|", "\\|")
    return f"{value:.3f}".replace("-", "−")
