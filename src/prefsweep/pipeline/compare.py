"""What a missing stage differs in from the nearest one that is built."""

from collections.abc import Iterator
from typing import Any

from prefsweep.pipeline.stage import Stage
from prefsweep.pipeline.store import Store

ABSENT = "absent"


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from flat(item, f"{path}.{key}" if path else key)
    else:
        yield path, value


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """`config.beta: 0.1 → 0.5`, one a leaf; for an input, its name alone: identities say nothing to a reader."""
    before, after = dict(flat(old)), dict(flat(new))
    changed = [key for key in {**before, **after} if before.get(key, ABSENT) != after.get(key, ABSENT)]
    return [
        f"another {key.removeprefix('inputs.')}"
        if key.startswith("inputs.")
        else f"{key.partition('.')[2] or key}: {before.get(key, ABSENT)} → {after.get(key, ABSENT)}"
        for key in changed
    ]


def nearest_built(stage: Stage, store: Store) -> tuple[str, list[str]] | None:
    """The identity of the finished stage of this name that differs in least, and in what."""
    candidates = [
        (record["identity"], differences({key: record.get(key) for key in stage.payload}, stage.payload))
        for record in store.records(stage.name)
    ]
    return min(candidates, key=lambda candidate: len(candidate[1]), default=None)
