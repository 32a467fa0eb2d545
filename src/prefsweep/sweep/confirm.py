"""The chosen configuration of a sweep on fresh seeds: what was chosen for its luck loses it."""

from pathlib import Path

from prefsweep.errors import UserError
from prefsweep.report.choice import Choice
from prefsweep.sweep.grid import word

OF_THE_SWEEP = ("seed", "sweep", "grid", "jobs")


def confirming(choice: Choice, folder: Path, seeds: int, why: str) -> list[str]:
    """The command's words: those of the chosen run, with seeds that the sweep has not seen."""
    run = choice.runs.iloc[0]
    if not run["overrides"]:
        raise UserError(f"{run['folder']}: does not say the words of its command; run the sweep again")
    said = [each for each in run["overrides"] if each.lstrip("+~").partition("=")[0] not in OF_THE_SWEEP]
    first = max((seed for seed in choice.runs["seed"] if isinstance(seed, int)), default=0) + 1
    fresh = ",".join(str(seed) for seed in range(first, first + seeds))
    named = [f"report.note={word(why)}", f"seed={fresh}", f"sweep={folder.resolve().name}-confirm"]
    return [*(each for each in said if not each.startswith("report.note=")), "grid=null", *named]
