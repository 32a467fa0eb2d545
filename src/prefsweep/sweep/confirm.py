"""Run the chosen configuration of a sweep on fresh seeds, on which it cannot have been chosen for its luck."""

from pathlib import Path

from prefsweep.config.overrides import key_of
from prefsweep.report.choice import Choice
from prefsweep.report.runs import records
from prefsweep.sweep.grid import format_value
from prefsweep.sweep.rescore import overrides_of

SWEEP_KEYS = ("seed", "sweep", "grid", "jobs", "report.note")


def confirm_overrides(choice: Choice, folder: Path, seeds: int, note: str) -> list[str]:
    """Return the overrides of the chosen runs with `seeds` seeds that the sweep has not used."""
    run = records(choice.runs)[0]
    overrides = [override for override in overrides_of(run) if key_of(override) not in SWEEP_KEYS]
    first = max((seed for seed in choice.runs["seed"] if isinstance(seed, int)), default=0) + 1
    fresh = ",".join(str(seed) for seed in range(first, first + seeds))
    sweep = f"sweep={folder.resolve().name}-confirm"
    return [*overrides, "grid=null", f"report.note={format_value(note)}", f"seed={fresh}", sweep]
