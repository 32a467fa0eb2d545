"""The sentences under a table, which define every ± in it."""

from collections.abc import Sequence
from typing import Any

from prefsweep.report.frame import NAMED, Run


def caption(runs: Sequence[Run], keys: Sequence[str], sizes: Sequence[int]) -> str:
    """What is equal in all rows, what ± means, and which runs the numbers stand for. `sizes`: n of every cell."""
    constant = [f"{name} {runs[0].names[name]}" for name in NAMED if name not in keys and runs and runs[0].names[name]]
    counted = [run for run in runs if run.has_result]
    parts = [", ".join(constant)] if constant else []
    if counted:
        prompts = sampled(counted)
        parts += [spread_text(sizes, counted)] + ([f"{prompts} a run"] if prompts else [])
    if any(run.status == "diverged" for run in counted):
        parts.append("a diverged run that could be judged stays in the mean")
    return ". ".join(part[0].upper() + part[1:] for part in parts) + ("." if parts else "")


def spread_text(sizes: Sequence[int], counted: Sequence[Run]) -> str:
    seeds = seeds_text({run.seed for run in counted})
    if not any(size >= 2 for size in sizes):
        return f"one run a row ({seeds}), so no interval"
    alone = "; a value without ± is a single run" if 1 in sizes else ""
    return f"mean over {seeds} ± half-width of its 95% Student-t interval, which is over seeds alone{alone}"


def seeds_text(seeds: set[Any]) -> str:
    known = sorted(seed for seed in seeds if isinstance(seed, int))
    if len(known) > 3 and known == list(range(known[0], known[-1] + 1)):
        return f"seeds {known[0]} to {known[-1]}"
    if len(known) > 8 or not known:
        return f"{len(seeds)} seeds" if known else "seeds"
    return ("seed " if len(known) == 1 else "seeds ") + ", ".join(map(str, known))


def sampled(runs: Sequence[Run]) -> str:
    """`500 test prompts`, or nothing where no run says how many."""
    counts = sorted({n for run in runs if (n := run.value("stages.sample.prompts")) is not None})
    splits = {str(split) for run in runs if (split := run.value("stages.sample.split")) is not None}
    split = f"{splits.pop()} " if len(splits) == 1 else ""
    return f"{' or '.join(map(str, counts))} {split}prompts" if counts else ""
