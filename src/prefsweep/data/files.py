"""Rows of a file, whatever its format, each with where it stands: what cannot be read is said by file and line."""

import csv
import gzip
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from prefsweep.errors import UserError, nearest


@dataclass(frozen=True, slots=True)
class Row:
    path: Path
    number: int  # of its line; in a csv, of the line it ends on; in a parquet file, of the row. From 1
    values: dict[str, Any]

    @property
    def where(self) -> str:
        return f"{self.path}, {'row' if self.path.suffix == '.parquet' else 'line'} {self.number}"

    def value(self, column: str) -> Any:
        if column not in self.values:
            there = ", ".join(map(str, self.values))
            raise UserError(f"{self.where}: has no column {column}{nearest(column, self.values)}; there are: {there}")
        return self.values[column]

    def text(self, column: str) -> str:
        found = self.value(column)
        if not isinstance(found, str):
            raise UserError(f"{self.where}: its {column} must be a text, not {shown(found)}")
        return found

    def number_of(self, column: str) -> float:
        found = self.value(column)
        try:
            return float(found)  # a csv knows only texts
        except (TypeError, ValueError) as error:
            raise UserError(f"{self.where}: its {column} must be a number, not {shown(found)}") from error


def shown(value: Any) -> str:
    """A value that should have been another, short enough for a line."""
    return repr(value)[:40]


def read(paths: Sequence[Path]) -> Iterator[Row]:
    """The rows of several files as of one; a file without any is a mistake."""
    for path in paths:
        found = False
        for found_at, values in reader_of(path)(path):
            found = True
            yield Row(path, found_at, values)
        if not found:
            raise UserError(f"{path}: holds no rows")


def format_of(path: Path) -> str | None:
    """`.jsonl.gz` of `train.jsonl.gz`; None for what is no file of rows."""
    return next((ending for ending in READERS if path.name.lower().endswith(ending)), None)


def reader_of(path: Path) -> "Callable[[Path], Iterator[tuple[int, dict[str, Any]]]]":
    ending = format_of(path)
    if ending is None:
        raise UserError(f"{path}: is of no known format; it must end in one of {', '.join(READERS)}")
    return READERS[ending]


def opened(path: Path) -> IO[str]:
    """utf-8, a byte order mark left out; line ends as they are, which csv needs."""
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def lines(path: Path) -> Iterator[tuple[int, str]]:
    number = 0
    with opened(path) as file:
        try:
            for line in file:
                number += 1
                yield number, line
        except UnicodeDecodeError as error:
            raise UserError(f"{path}, after line {number}: is not utf-8 ({error.reason})") from error
        except (EOFError, OSError) as error:
            raise UserError(f"{path}, after line {number}: cannot be read on ({error})") from error


def jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: must be an object with named columns, not {shown(row)}")
        yield number, row


def comma_separated(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(sys.maxsize)
    rows = csv.DictReader((line for _, line in lines(path)), strict=True)
    try:
        for row in rows:
            if None in row or None in row.values():
                columns = len(rows.fieldnames or [])
                raise UserError(f"{path}, line {rows.line_num}: has not the {columns} columns of the heading")
            yield rows.line_num, row
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num}: not csv ({error})") from error


def parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        said = str(error).splitlines()[0]
        raise UserError(f"{path}, after row {number}: cannot be read as parquet ({said})") from error


READERS: dict[str, Callable[[Path], Iterator[tuple[int, dict[str, Any]]]]] = {
    ".jsonl.gz": jsonl,
    ".jsonl": jsonl,
    ".csv": comma_separated,
    ".parquet": parquet,
}
