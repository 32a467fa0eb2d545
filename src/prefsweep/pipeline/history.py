"""The history of a stage: one row of metrics a logged step, in a file that a resumed build continues."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class History:
    """Appends rows to `path` and passes each to `listener`. Rows hold reproducible numbers only, never times."""

    def __init__(self, path: Path, listener: Callable[[Row], None] = lambda row: None):
        self.path = path
        self.listener = listener

    def rows(self) -> Iterator[Row]:
        if self.path.is_file():
            with self.path.open() as file:
                yield from map(json.loads, file)

    def append(self, step: int, metrics: dict[str, Any]) -> None:
        row = {"step": step, **metrics}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.listener(row)

    def say(self, step: int, news: dict[str, Any]) -> None:
        """Tell the listener what is no part of the history: how fast it goes, how it looks. Nothing is written."""
        self.listener({"step": step, **news})

    def rewind(self, step: int) -> None:
        """Forget what came after `step`, the checkpoint that a build goes on from, and tell the rest again."""
        kept = []
        if self.path.is_file():
            for line in self.path.read_text().splitlines():
                try:
                    row = json.loads(line)
                except ValueError:  # a line that a kill cut off is the last one
                    break
                if row["step"] <= step:
                    kept.append(row)
        aside = self.path.with_suffix(".aside")
        aside.write_text("".join(json.dumps(row) + "\n" for row in kept))
        aside.replace(self.path)
        for row in kept:
            self.listener(row)
