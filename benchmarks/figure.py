"""The table and the figure of docs/performance.md, from the results that are there.

    python benchmarks/figure.py [RESULTS] [FIGURE.png]

The table goes to the terminal, a row a case and measure: medians, and how many times ours goes into the peer's. The
figure shows the ratios, one panel a device; a bar beyond the line at 1 is a case in which ours takes less.
"""

import json
import sys
from pathlib import Path
from typing import Any

from harness import RESULTS, ROOT

SHOWN = {"step", "run", "shared", "iteration", "sweep", "per_1000_pairs", "per_1000_completions"}
Row = tuple[str, str, dict[str, float]]  # case, measure, its medians and their ratio


def main(results: Path = RESULTS, figure: Path = ROOT / "docs/performance.png") -> None:
    rows_of_device = {path.name: rows(path) for path in sorted(results.iterdir()) if path.is_dir()}
    for device, table in rows_of_device.items():
        print(f"\n**{device}**\n\n" + markdown(table))
    draw({device: [row for row in table if "ratio" in row[2]] for device, table in rows_of_device.items()}, figure)


def rows(folder: Path) -> list[Row]:
    table = []
    for path in sorted(folder.glob("*.json")):
        result: dict[str, Any] = json.loads(path.read_text())
        for measure, values in result["summary"].items():
            if isinstance(values, dict) and (measure in SHOWN or measure.endswith("_mb")):
                table.append((f"{result['script']} {result['name']}", measure, values))
    return table


def markdown(table: list[Row]) -> str:
    """Return the rows as a table; memory is in MB, all else in seconds.

    The last column is against the precision in which TRL is fastest, whichever ours has.
    """
    best: dict[tuple[str, str], float] = {}
    for case, measure, values in table:
        key = case.rpartition("-")[0], measure
        best[key] = min(best.get(key, float("inf")), values.get("peer", float("inf")))
    lines = ["| case | measure | ours | TRL | ratio | to TRL's best |", "| :-- | :-- | --: | --: | --: | --: |"]
    for case, measure, values in table:
        ours, peer = (number(values.get(side)) for side in ("ours", "peer"))
        ratios = [values["ratio"], best[case.rpartition("-")[0], measure] / values["ours"]] if "ratio" in values else []
        cells = [f"{ratio:.2f}×" for ratio in ratios] or ["–", "–"]
        lines.append(f"| {case} | {measure} | {ours} | {peer} | {' | '.join(cells)} |")
    return "\n".join(lines)


def number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def draw(tables: dict[str, list[Row]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    tables = {device: [row for row in table if row[1] in SHOWN] for device, table in tables.items()}
    tables = {device: table for device, table in tables.items() if table}
    if not tables:
        return
    height = max(map(len, tables.values())) * 0.24 + 0.8
    figure, axes = pyplot.subplots(1, len(tables), figsize=(8 * len(tables), height), squeeze=False)
    for axis, (device, table) in zip(axes[0], tables.items(), strict=True):
        colours = {measure: f"C{index}" for index, measure in enumerate(sorted(SHOWN))}
        labels = [f"{case}  {measure}" for case, measure, _ in table]
        ratios = [values["ratio"] for *_, values in table]
        bars = axis.barh(labels, ratios, color=[colours[measure] for _, measure, _ in table])
        axis.bar_label(bars, [f"{ratio:.1f}×" for ratio in ratios], padding=2, fontsize=7)
        axis.axvline(1, color="black", linewidth=0.8)
        axis.invert_yaxis()
        axis.tick_params(labelsize=7)
        axis.set(title=device, xlabel="TRL's time over ours")
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
