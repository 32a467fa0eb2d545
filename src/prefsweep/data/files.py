"""Rows of a file of any known format, each with its location: an error names the file and the line."""

import csv
import gzip
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from prefsweep.errors import UserError, nearest

LABELS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class Row:
    path: Path
    number: int  # of its line; in a csv, of the line it ends on; in a parquet file, of the row. From 1
    values: dict[str, Any]

    @property
    def location(self) -> str:
        return f"{self.path}, {unit(self.path)} {self.number}"

    def value(self, column: str) -> Any:
        if column not in self.values:
            columns = ", ".join(map(str, self.values))
            raise UserError(
                f"{self.location}: has no column {column}{nearest(column, self.values)}; there are: {columns}"
            )
        return self.values[column]

    def text(self, column: str) -> str:
        value = self.value(column)
        if not isinstance(value, str):
            raise self.wrong_type(column, "a text")
        return value

    def real(self, column: str) -> float:
        try:
            return float(self.value(column))  # a csv knows only texts
        except (TypeError, ValueError) as error:
            raise self.wrong_type(column, "a number") from error

    def flag(self, column: str) -> bool:
        """Return a truth value: true or false, 1 or 0, as a csv's text too."""
        label = LABELS.get(str(self.value(column)).strip().lower())
        if label is None:
            raise self.wrong_type(column, "true or false, or 1 or 0")
        return label

    def wrong_type(self, column: str, wanted: str) -> UserError:
        return UserError(f"{self.location}: its {column} must be {wanted}, not {shorten(self.values[column])}")


def shorten(value: Any) -> str:
    """Return a value of the wrong type as it is shown in an error."""
    return repr(value)[:40]


def read(paths: Sequence[Path]) -> Iterator[Row]:
    """Yield the rows of several files as if they were one; raise a UserError at a file without any."""
    for path in paths:
        ending = format_of(path)
        if ending is None:
            raise UserError(f"{path}: is of no known format; it must end in one of {', '.join(READERS)}")
        number = 0
        try:
            for number, values in READERS[ending](path):
                yield Row(path, number, values)
        except UnicodeDecodeError as error:
            raise UserError(f"{path}, after line {number}: is not utf-8 ({error.reason})") from error
        except (csv.Error, EOFError, OSError, ValueError) as error:  # pyarrow's are of the last two
            message = str(error).splitlines()[0]
            raise UserError(f"{path}, after {unit(path)} {number}: cannot be read as {ending} ({message})") from error
        if number == 0:
            raise UserError(f"{path}: holds no rows")


def unit(path: Path) -> str:
    """Return what the rows of a file are counted in."""
    return "row" if path.suffix.lower() == ".parquet" else "line"


def format_of(path: Path) -> str | None:
    """Return the ending of a known format, such as `.jsonl.gz`; None for any other file."""
    return next((ending for ending in READERS if path.name.lower().endswith(ending)), None)


def open_text(path: Path) -> IO[str]:
    """Open a file as utf-8 without its byte order mark, with line ends as they are, which csv needs."""
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}, line {number}: not JSON ({error})") from error
            if not isinstance(row, dict):
                raise UserError(f"{path}, line {number}: must be an object with named columns, not {shorten(row)}")
            yield number, row


def comma_separated(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(sys.maxsize)
    with open_text(path) as file:
        rows = csv.DictReader(file, strict=True)
        for row in rows:
            if None in row or None in row.values():
                columns = len(rows.fieldnames or [])
                raise UserError(f"{path}, line {rows.line_num}: has not the {columns} columns of the heading")
            yield rows.line_num, row


def parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        batches = file.iter_batches(batch_size=1024)
        yield from enumerate((row for batch in batches for row in batch.to_pylist()), start=1)


READERS: dict[str, Callable[[Path], Iterator[tuple[int, dict[str, Any]]]]] = {
    ".jsonl.gz": jsonl,
    ".jsonl": jsonl,
    ".csv": comma_separated,
    ".parquet": parquet,
}
