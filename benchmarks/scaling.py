"""Time and peak memory of ours alone: from 1,000 to 160,000 pairs, and from 1 to 64 jobs of a sweep.

    python benchmarks/scaling.py --device cpu

A small model, so that what grows is the data's part: reading, tokenising, the reference's log-probabilities of all
pairs; then 20 steps of DPO. The jobs of a sweep differ in seed, and each trains those steps from what they share.
"""

import json
import sys
from pathlib import Path

import harness
from dpo import runtime, stage_settings
from harness import Bench, Run, World

SIZES, JOBS = (1_000, 4_000, 16_000, 160_000), (1, 4, 16, 64)
STEPS, BATCH = 20, 8


def arguments(argv: list[str] | None = None) -> Bench:
    return harness.bench("scaling", __doc__, ["small"], ["hh"], argv, ["pairs", "jobs"])


def measure_all(bench: Bench) -> None:
    bench.options.tokenizer, quick = None, bench.options.quick  # a small model has a small vocabulary
    del bench.options.precision[1:]
    for model, shape, precision in bench.cases():
        for method in bench.options.method:
            counts = ((32, 64) if quick else SIZES) if method == "pairs" else ((1, 2) if quick else JOBS)
            for count in counts:
                measure(bench, method, count, model, shape, precision)


def measure(bench: Bench, method: str, count: int, model: str, shape: str, precision: str) -> None:
    spec = {
        "steps": 2 if bench.options.quick else STEPS, "batch": BATCH, "micro_batch": BATCH, "forward_batch": 64,
        "learning_rate": 5e-5,
    }  # fmt: skip
    world = bench.world(model, shape, count if method == "pairs" else STEPS * BATCH)
    settings = [*stage_settings("dpo", spec, precision), "stages.dpo.validation_prompts=0", *runtime(spec)]
    words = ["method=only-dpo", *world.overrides, *settings]

    def compare(folder: Path) -> dict[str, object]:
        run = (
            bench.ours(folder, precision, words) if method == "pairs" else sweep(bench, folder, precision, words, count)
        )
        summary = {"wall_seconds": run["wall_seconds"], "peak_mb": run["peak_bytes"] / 2**20}
        return {
            "summary": summary | ({"data_mb": data_mb(world)} if method == "pairs" else {}),
            "runs": {"ours": [run]},
        }

    bench.case(
        f"{method}-{count}-{precision}", compare, model=model, rows=shape, precision=precision, count=count, **spec
    )


def sweep(bench: Bench, folder: Path, precision: str, words: list[str], count: int) -> Run:
    """Run a sweep of so many seeds; its peak is the largest of its jobs, by their own records."""
    seeds = ",".join(map(str, range(1, count + 1)))
    shared = ["tracking=off", "jobs=2", "sweep=benchmark", f"runtime.device={bench.device}"]
    command = [sys.executable, "-m", "prefsweep", "-cd", harness.CONF, "-m", *words, *shared, f"seed={seeds}"]
    run = harness.measure(command, bench.environment(precision, harness.OURS_PATH), folder)
    records = map(json.loads, (path.read_text() for path in folder.glob("outputs/stages/dpo/*/record.json")))
    return run | {"peak_bytes": max(record["cost"]["peak_memory_bytes"] for record in records)}


def data_mb(world: World) -> float:
    return world.rows.stat().st_size / 2**20


if __name__ == "__main__":
    harness.work(arguments(), measure_all)
