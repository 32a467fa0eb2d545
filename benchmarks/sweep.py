"""A sweep of SFT and DPO, 3 betas × 2 learning rates × 2 seeds, beside the same 12 runs as scripts of TRL.

    python benchmarks/sweep.py --device cpu --precision fp32

Ours is the one command `prefsweep -m`, from its start to its end: stages that runs share are computed once. Each script
of TRL trains SFT, saves it, and trains DPO from it. They do not depend on each other, so `--repeat` of them are timed,
and the sweep by scripts is 12 times their median.
"""

import os
import sys
from pathlib import Path

import harness
from dpo import runtime, stage_settings
from harness import Bench, Run

BETAS, RATES, SEEDS = (0.1, 0.3, 0.5), (2e-5, 5e-5), (1, 2)
RUNS = len(BETAS) * len(RATES) * len(SEEDS)


def arguments(argv: list[str] | None = None) -> Bench:
    return harness.bench("sweep", __doc__, ["gpt2"], ["hh"], argv)


def measure_all(bench: Bench) -> None:
    for model, shape, precision in bench.cases():
        measure(bench, model, shape, precision)


def measure(bench: Bench, model: str, shape: str, precision: str) -> None:
    steps = bench.options.steps or (1 if bench.options.quick else {"cpu": 5, "cuda": 30}[bench.device])
    batch = bench.options.batch or (4 if bench.options.quick else {"cpu": 8, "cuda": 32}[bench.device])
    spec = {
        "method": "sft+dpo", "seed": 1, "steps": steps, "batch": batch,
        "micro_batch": min(batch, {"cpu": 4, "cuda": 32}[bench.device]),
        "forward_batch": {"cpu": 8, "cuda": 32}[bench.device], "learning_rate": 5e-5, "beta": 0.1,
    }  # fmt: skip
    world = bench.world(model, shape, steps * batch)
    jobs = 2 if bench.device == "cpu" and (os.cpu_count() or 1) > 1 else 1

    def ours(folder: Path) -> Run:
        grid = [
            f"stages.dpo.beta={listed(BETAS)}",
            f"stages.dpo.learning_rate={listed(RATES)}",
            f"seed={listed(SEEDS)}",
        ]
        settings = [*stage_settings("sft", spec, precision), *stage_settings("dpo", spec, precision)]
        settings = [word for word in settings if not word.startswith("stages.dpo.learning_rate")]
        quiet = ["stages.sft.validation_prompts=0", "stages.dpo.validation_prompts=0", "tracking=off", f"jobs={jobs}"]
        command = [
            sys.executable,
            "-m",
            "prefsweep",
            "-cd",
            harness.CONF,
            "-m",
            "method=only-sft+dpo",
            *world.overrides,
        ]
        device = [f"runtime.device={bench.device}", "sweep=benchmark", *runtime(spec)]
        env = bench.environment(precision, harness.OURS_PATH)
        return harness.measure([*command, *settings, *quiet, *device, *grid], env, folder)

    def peer(folder: Path) -> Run:
        return bench.peer(folder, precision, spec | {"model": str(world.policy), "rows": str(world.train)})

    def compare(folder: Path) -> dict[str, object]:
        (folder / "ours").mkdir()
        run = ours(folder / "ours")
        scripts = bench.in_turn(folder, None, peer if bench.has_peer() else None)[1]
        wall = harness.median_ratio([run["wall_seconds"]], [RUNS * script["wall_seconds"] for script in scripts])
        return {"summary": {"sweep": wall}, "runs": {"ours": [run], "peer": scripts}}

    bench.case(
        f"{model}-{shape}-{precision}",
        compare,
        model=model,
        rows=shape,
        precision=precision,
        jobs=jobs,
        runs=RUNS,
        **spec,
    )


def listed(values: tuple[float, ...]) -> str:
    return ",".join(map(str, values))


if __name__ == "__main__":
    harness.work(arguments(), measure_all)
