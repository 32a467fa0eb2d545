"""Passes without a gradient beside TRL's and transformers': seconds per 1,000 pairs or completions.

    python benchmarks/passes.py --device cpu --method reference evaluate generate --precision fp32

`reference`: log-probabilities of pairs under a frozen model, against those that DPOTrainer precomputes; loading and
tokenising included on both sides. `evaluate`: the stage that measures a policy against its base on pairs and
completions, against that precomputation for two models. `generate`: sampled completions of held-out prompts, against
`generate` of transformers in batches of rows of similar length, from the first batch to the last.
"""

import json
from pathlib import Path

import harness
from dpo import runtime, stage_precision, stage_settings
from harness import Bench, Run, World

TOKENS = 64


def arguments(argv: list[str] | None = None) -> Bench:
    return harness.bench("passes", __doc__, ["gpt2"], ["hh"], argv, ["reference", "evaluate", "generate"])


def measure_all(bench: Bench) -> None:
    for model, shape, precision in bench.cases():
        for method in bench.options.method:
            measure(bench, method, model, shape, precision)


def measure(bench: Bench, method: str, model: str, shape: str, precision: str) -> None:
    count = bench.options.batch or (8 if bench.options.quick else {"cpu": 64, "cuda": 1024}[bench.device])
    forward_batch = {"cpu": 8, "cuda": 64}[bench.device]
    spec = {
        "method": "generate" if method == "generate" else "dpo", "seed": 1, "steps": 0, "batch": forward_batch,
        "micro_batch": forward_batch, "forward_batch": forward_batch, "learning_rate": 5e-5, "beta": 0.1,
        "tokens": TOKENS,
    }  # fmt: skip
    world = bench.world(model, shape, count, 1 if method == "reference" else count)

    def ours(folder: Path) -> Run:
        run = bench.ours(folder, precision, [*world.overrides, *words(method, world, count, spec, precision)])
        if method == "reference":
            return run | {"seconds": run["ended"] - run["started"]}
        return run | {"seconds": stage_seconds(folder, method)}

    def peer(folder: Path) -> Run:
        rows = world.train if method == "reference" else world.test
        run = bench.peer(folder, precision, spec | {"model": str(world.policy), "rows": str(rows)})
        if method == "generate":
            return run
        return run | {"seconds": (run["built"] - run["begun"]) * (2 if method == "evaluate" else 1)}

    def compare(folder: Path) -> dict[str, object]:
        runs, peers = bench.in_turn(folder, ours, peer if bench.has_peer() else None)
        thousands = [[run["seconds"] * 1000 / count for run in side] for side in (runs, peers)]
        unit = "completions" if method == "generate" else "pairs"
        return {
            "summary": {f"per_1000_{unit}": harness.median_ratio(*thousands)},
            "runs": {"ours": runs, "peer": peers},
        }

    bench.case(
        f"{method}-{model}-{shape}-{precision}",
        compare,
        model=model,
        rows=shape,
        precision=precision,
        count=count,
        **spec,
    )


def words(method: str, world: World, count: int, spec: Run, precision: str) -> list[str]:
    """Return the overrides of the job that computes this pass; `evaluate` needs a policy, which trains for one step."""
    of_stage = f"precision={stage_precision(precision)}"
    generated = [
        f"stages.generate.prompts={count}", "stages.generate.completions_per_prompt=1",
        f"stages.generate.max_new_tokens={TOKENS}", f"stages.generate.{of_stage}",
    ]  # fmt: skip
    if method == "reference":
        return ["method=only-reference", f"stages.reference_logps.{of_stage}", *runtime(spec)]
    if method == "generate":
        return ["method=base", "method.target=generate/base", *generated, *runtime(spec)]
    one_step = stage_settings("sft", spec | {"steps": 1}, precision)
    judge = [
        "scorer@judge=sentiment-roberta",
        f"judge.path={world.scorer}",
        "stages.base_draws.completions_per_prompt=2",
    ]
    trained = ["method=sft", *one_step, "stages.sft.validation_prompts=0", f"stages.evaluate.pairs={count}"]
    return [*trained, *generated, *judge, *runtime(spec)]


def stage_seconds(folder: Path, stage: str) -> float:
    """Return what the stage of this name that was built in a folder took, by its record."""
    (record,) = (folder / "outputs/stages" / stage).glob("*/record.json")
    return float(json.loads(record.read_text())["cost"]["seconds"])


if __name__ == "__main__":
    harness.work(arguments(), measure_all)
