"""The history of a stage: one row of metrics a logged step, in a file that a resumed build continues."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefsweep.pipeline.files import Row as Row, append_jsonl, read_jsonl, recover_jsonl, write_jsonl


@dataclass(eq=False)
class History:
    """Append rows to `path` and pass each to `listener`. Rows hold reproducible numbers only, never times."""

    path: Path
    listener: Callable[[Row], None] = lambda row: None

    def rows(self) -> Iterator[Row]:
        if self.path.is_file():
            yield from read_jsonl(self.path)

    def append(self, step: int, metrics: dict[str, Any]) -> None:
        row = {"step": step, **metrics}
        append_jsonl(self.path, [row])
        self.listener(row)

    def announce(self, step: int, news: dict[str, Any]) -> None:
        """Pass to the listener what is not part of the history: speed, sample texts. Nothing is written."""
        self.listener({"step": step, **news})

    def rewind(self, step: int) -> None:
        """Drop the rows after `step`, the checkpoint that a build resumes from, and pass the rest to the listener."""
        rows = [row for row in recover_jsonl(self.path) if row["step"] <= step]
        write_jsonl(self.path, rows)
        for row in rows:
            self.listener(row)
