"""How a missing stage differs from the most similar one that is already built."""

from typing import Any

from prefsweep.pipeline.files import flatten
from prefsweep.pipeline.stage import Stage
from prefsweep.pipeline.store import Store

ABSENT = "absent"


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Describe each leaf that differs, as in `beta: 0.1 → 0.5`; of an input, known by a hash, only the name."""
    before, after = flatten(old), flatten(new)
    changed = [key for key in {**before, **after} if before.get(key, ABSENT) != after.get(key, ABSENT)]
    return [
        f"another {key.removeprefix('inputs.')}"
        if key.startswith("inputs.")
        else f"{key.partition('.')[2] or key}: {before.get(key, ABSENT)} → {after.get(key, ABSENT)}"
        for key in changed
    ]


def nearest_built(stage: Stage, store: Store) -> tuple[str, list[str]] | None:
    """Return the identity of the finished stage of the same name with the fewest differences, and those differences."""
    candidates = [
        (record["identity"], differences({key: record.get(key) for key in stage.payload}, stage.payload))
        for record in store.records(stage.name)
    ]
    return min(candidates, key=lambda candidate: len(candidate[1]), default=None)
