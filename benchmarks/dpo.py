"""DPO beside TRL's DPOTrainer: the same rows, model, seed, effective batch and precision.

    python benchmarks/dpo.py --device cpu --model gpt2 --rows hh --precision fp32 bf16

`step`: seconds from the end of an optimiser step to that of the next. `run`: a single training to its last step, with
everything that it needs on either side: loading, tokenising, the reference's log-probabilities, the optimiser.
`shared`: the same where the reference's log-probabilities are there from another run of a sweep, which TRL computes
for each. The losses must agree within 1e-3 in fp32.
"""

import json
from pathlib import Path

import harness
from harness import Bench, Run

MAX_DIFFERENCE = {"fp32": 1e-3, "tf32": 1e-2, "bf16": 2e-2}


def arguments(argv: list[str] | None = None) -> Bench:
    return harness.bench("dpo", __doc__, ["gpt2", "opt-350m"], ["hh", "ultrafeedback"], argv)


def measure_all(bench: Bench) -> None:
    for model, shape, precision in bench.cases():
        measure(bench, model, shape, precision)


def measure(bench: Bench, model: str, shape: str, precision: str) -> None:
    steps = bench.options.steps or (2 if bench.options.quick else {"cpu": 5, "cuda": 30}[bench.device])
    batch = bench.options.batch or (4 if bench.options.quick else {"cpu": 8, "cuda": 32}[bench.device])
    micro_batch = min(batch, {"cpu": 4, "cuda": 32}[bench.device])
    spec = {
        "method": "dpo", "seed": 1, "steps": steps, "batch": batch, "micro_batch": micro_batch,
        "forward_batch": {"cpu": 8, "cuda": 32}[bench.device], "learning_rate": 5e-5, "beta": 0.1,
    }  # fmt: skip
    world = bench.world(model, shape, steps * batch)

    def ours(folder: Path) -> Run:
        settings = [*stage_settings("dpo", spec, precision), "stages.dpo.beta=0.1", "stages.dpo.validation_prompts=0"]
        pass_only = ["method=only-reference", f"stages.reference_logps.precision={stage_precision(precision)}"]
        reference = bench.ours(folder, precision, [*world.overrides, *pass_only, *runtime(spec)])
        trained = bench.ours(folder, precision, [*world.overrides, "method=only-dpo", *runtime(spec), *settings])
        return trained | {
            "reference_seconds": reference["ended"] - reference["started"],
            "peak_bytes": max(reference["peak_bytes"], trained["peak_bytes"]),
            "losses": losses(folder, "dpo"),
        }

    def peer(folder: Path) -> Run:
        return bench.peer(folder, precision, spec | {"model": str(world.policy), "rows": str(world.train)})

    def compare(folder: Path) -> dict[str, object]:
        runs, peers = bench.in_turn(folder, ours, peer if bench.has_peer() else None)
        return {
            "summary": summary(runs, peers) | harness.memory(runs, peers, bench.device),
            "checks": checks(runs, peers, precision),
            "runs": {"ours": runs, "peer": peers},
        }

    bench.case(f"{model}-{shape}-{precision}", compare, model=model, rows=shape, precision=precision, **spec)


def stage_settings(stage: str, spec: Run, precision: str) -> list[str]:
    """Return the overrides that give a training stage of ours the settings of a spec."""
    values = {
        "batch_size": spec["batch"], "learning_rate": spec["learning_rate"], "schedule": "constant_with_warmup",
        "warmup_steps": 0, "max_steps": spec["steps"], "precision": stage_precision(precision),
    }  # fmt: skip
    return [f"stages.{stage}.{name}={value}" for name, value in values.items()]


def stage_precision(precision: str) -> str:
    """Return the precision that a stage is set to; TF32 is fp32 to all but the GPU."""
    return "bf16" if precision == "bf16" else "fp32"


def runtime(spec: Run) -> list[str]:
    return [f"runtime.micro_batch={spec['micro_batch']}", f"runtime.forward_batch={spec['forward_batch']}"]


def losses(folder: Path, stage: str) -> list[float]:
    """Return the training losses of the stage of this name that was built in a folder."""
    (history,) = (folder / "outputs/stages" / stage).glob("*/history.jsonl")
    return [row["loss"] for row in map(json.loads, history.read_text().splitlines()) if "loss" in row]


def until_last_step(run: Run) -> float:
    return float(run["steps"][-1] - run["started"])


def summary(ours: list[Run], peers: list[Run]) -> dict[str, dict[str, float]]:
    whole = [until_last_step(run) for run in peers]
    return {
        "step": harness.median_ratio(harness.mean_steps(ours), harness.mean_steps(peers)),
        "run": harness.median_ratio([run["reference_seconds"] + until_last_step(run) for run in ours], whole),
        "shared": harness.median_ratio(list(map(until_last_step, ours)), whole),
    }


def checks(ours: list[Run], peers: list[Run], precision: str) -> dict[str, object]:
    if not peers:
        return {}
    difference = harness.relative_difference(ours[0]["losses"], peers[0]["losses"])
    return {"loss_difference": difference, "losses_agree": difference <= MAX_DIFFERENCE[precision]}


if __name__ == "__main__":
    harness.work(arguments(), measure_all)
