"""Before and after: what the start and the result of a method answer to the same prompts, and what the judge says.

Both are asked with the same random numbers, so where they agree they answer alike, and a row is a comparison.
"""

import csv
import io
import json
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import fmean, median

from prefsweep.pipeline.files import write_text

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
    """From two files of scored samples, in the result's order; rows are matched by prompt and sample number."""
    before = {(row["id"], row["sample"]): row for row in map(json.loads, start.open())}
    found = []
    for row in map(json.loads, result.open()):
        first = before[row["id"], row["sample"]]
        scores = (each["scores"]["score"] for each in (first, row))
        found.append(Pair(row["prompt"], first["completion"], next(scores), row["completion"], next(scores)))
    return found


def write_before_after(pairs: list[Pair], folder: Path) -> None:
    write_text(folder / "before_after.md", to_markdown(pairs))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *map(astuple, pairs)])
    write_text(folder / "before_after.csv", text.getvalue())


def to_markdown(pairs: list[Pair]) -> str:
    """The first rows, and the mean and median of all."""
    columns = [pair.score_before for pair in pairs], [pair.score_after for pair in pairs]
    lines = ["| prompt | before | score | after | score |", "| :-- | :-- | --: | :-- | --: |"]
    for pair in pairs[:SHOWN]:
        lines.append(row(pair.prompt, pair.before, pair.score_before, pair.after, pair.score_after))
    for name, of in (("mean", fmean), ("median", median)):
        before, after = (float(of(column)) for column in columns)
        lines.append(row(f"**{name} of {len(pairs)}**", "", before, "", after))
    return "\n".join(lines) + "\n"


def row(prompt: str, before: str, score_before: float, after: str, score_after: float) -> str:
    return f"| {cell(prompt)} | {cell(before)} | {number(score_before)} | {cell(after)} | {number(score_after)} |"


def number(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
