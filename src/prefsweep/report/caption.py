"""The sentences under a table, which define every ± in it."""

from collections.abc import Sequence
from typing import Any

from prefsweep.report.cell import Cell, Marks
from prefsweep.report.frame import NAMED, Run

WILSON = "a rate's interval, in brackets, is Wilson's at the number of independent answers that this variance equals"
HALF_SUM = "half the sum of two rates has its interval from theirs (MOVER)"
CROSSED = (
    "over new seeds and new prompts (variance of seeds, of prompts and of both together, prompts clustered by group, "
    "Satterthwaite's degrees of freedom)"
)


def caption(
    runs: Sequence[Run], keys: Sequence[str], cells: Sequence[Cell], marks: Sequence[Marks], unexpected: bool
) -> str:
    """What is equal in all rows, what every ± and mark means, and which runs the numbers stand for."""
    constant = [f"{name} {runs[0].names[name]}" for name in NAMED if name not in keys and runs and runs[0].names[name]]
    counted = [run for run in runs if run.has_result]
    parts = [", ".join(constant)] if constant else []
    if counted:
        prompts = sampled(counted)
        parts += [*spread_text(cells, counted), *([f"{prompts} a run"] if prompts else []), *mark_text(marks)]
    sources = {cell.published.source for cell in cells if cell.published}
    if sources:
        parts.append("published: " + "; ".join(sorted(filter(None, sources)) or ["as given in the experiment"]))
    if any(run.status == "diverged" for run in counted):
        parts.append("a diverged run that could be judged stays in the mean")
    if unexpected:
        parts.append("runs that did not finish have no number here; the last column counts them")
    return ". ".join(part[0].upper() + part[1:] for part in parts) + ("." if parts else "")


def spread_text(cells: Sequence[Cell], counted: Sequence[Run]) -> list[str]:
    seeds = seeds_text({run.seed for run in counted})
    kinds = {cell.over for cell in cells if cell.mean is not None}
    if not kinds - {""}:
        return [f"one run a row ({seeds}) and no values of single answers, so no interval"]
    said = {
        "seeds and prompts": f"mean over {seeds} ± half-width of its 95% interval {CROSSED}",
        "prompts": f"with one seed ({seeds}) the 95% interval is over prompts alone: another seed may differ by more",
        "seeds": f"a metric without values of single answers is the mean over {seeds} ± half-width of its 95% "
        "Student-t interval over seeds alone",
        "": "a value without an interval is a single run",
    }
    if kinds <= {"seeds", ""}:
        said["seeds"] = f"mean over {seeds} ± half-width of its 95% Student-t interval, which is over seeds alone"
    if len({"seeds and prompts", "prompts"} & kinds) == 2:
        said["prompts"] = "of a single run it is over prompts alone"
    rates = [WILSON] if any(cell.is_rate and cell.mean is not None for cell in cells) else []
    rates += [HALF_SUM] if any(cell.halves and cell.is_rate for cell in cells) else []
    return [text for kind, text in said.items() if kind in kinds] + rates


def mark_text(marks: Sequence[Marks]) -> list[str]:
    if not any(mark.tested for mark in marks):
        return []
    return [
        "bold: better than every other row of its column; *: worse than its best; both paired over seeds and prompts, "
        "p < .05 after Holm's correction over all pairs of rows in the column"
    ]


def seeds_text(seeds: set[Any]) -> str:
    known = sorted(seed for seed in seeds if isinstance(seed, int))
    if len(known) > 3 and known == list(range(known[0], known[-1] + 1)):
        return f"seeds {known[0]} to {known[-1]}"
    if len(known) > 8 or not known:
        return f"{len(seeds)} seeds" if known else "seeds"
    return ("seed " if len(known) == 1 else "seeds ") + ", ".join(map(str, known))


def sampled(runs: Sequence[Run]) -> str:
    """`500 test prompts`, or nothing where no run says how many."""
    counts = sorted({n for run in runs if (n := run.value("stages.generate.prompts")) is not None})
    splits = {str(split) for run in runs if (split := run.value("stages.generate.split")) is not None}
    split = f"{splits.pop()} " if len(splits) == 1 else ""
    return f"{' or '.join(map(str, counts))} {split}prompts" if counts else ""
