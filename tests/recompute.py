"""A table recomputed from run.json and completions.jsonl: no code of ours, no arrays, the definitions alone."""

import json
import math
from pathlib import Path
from statistics import fmean

from scipy.stats import t


def interval(seeds: list[dict[str, list[float]]]) -> tuple[float, float, float]:
    """`seeds`: group → values, a dict a seed. Mean, standard error and degrees of freedom."""
    groups, n = list(seeds[0]), sum(map(len, seeds[0].values()))
    mean = fmean(fmean(v for values in seed.values() for v in values) for seed in seeds)
    y = [[mean + len(seed[g]) * len(groups) / n * (fmean(seed[g]) - mean) for g in groups] for seed in seeds]
    s, p = len(seeds), len(groups)
    by_seed, by_group = [fmean(row) for row in y], [fmean(column) for column in zip(*y, strict=True)]
    of_groups = s * sum((x - mean) ** 2 for x in by_group) / (p - 1)
    if s == 1:
        return mean, math.sqrt(of_groups / p), p - 1
    of_seeds = p * sum((x - mean) ** 2 for x in by_seed) / (s - 1)
    rest = sum((y[i][j] - by_seed[i] - by_group[j] + mean) ** 2 for i in range(s) for j in range(p))
    rest /= (s - 1) * (p - 1)
    total = max(of_seeds + of_groups - rest, rest)
    squares = of_seeds**2 / (s - 1) + of_groups**2 / (p - 1) + rest**2 / (s - 1) / (p - 1)
    return mean, math.sqrt(total / s / p), max(total**2 / squares, min(s, p) - 1)


def recomputed(sweep: Path, metric: str, decimals: int, rate: bool) -> dict[str, str]:
    """Method → the cell as the table must show it."""
    rows: dict[str, list[dict[str, list[float]]]] = {}
    for path in sorted(sweep.glob("*/run.json")):
        run = json.loads(path.read_text())
        samples = Path(run["config"]["runtime"]["outputs"], "stages/evaluate", run["stages"]["evaluate"])
        by_group: dict[str, list[float]] = {}
        for row in map(json.loads, (samples / "completions.jsonl").read_text().splitlines()):
            by_group.setdefault(row["group"], []).append(row["values"][metric])
        rows.setdefault(run["config"]["method"]["name"], []).append(by_group)
    shown = {}
    for method, seeds in rows.items():
        mean, error, degrees = interval(seeds)
        quantile, completions = t.ppf(0.975, degrees), sum(map(len, seeds[0].values())) * len(seeds)
        shown[method] = f"{mean:.{decimals}f} ± {quantile * error:.{decimals}f}"
        if rate:
            n, z = min(mean * (1 - mean) / error**2, completions), quantile**2
            centre, half = (mean + z / 2 / n), math.sqrt(z * (mean * (1 - mean) / n + z / 4 / n / n))
            low, high = ((centre + sign * half) / (1 + z / n) for sign in (-1, 1))
            shown[method] = f"{mean:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"
        shown[method] = shown[method].replace("-", "−")
    return shown
