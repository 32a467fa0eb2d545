"""SFT, KTO and reward models beside TRL's trainers: the same rows, model, seed, effective batch and precision.

    python benchmarks/trainers.py --device cpu --method sft kto reward --precision fp32 bf16

`step`: seconds from the end of an optimiser step to that of the next. KTO's batch is of single completions, a reward
model's of pairs. The losses of SFT must agree within 1e-3 in fp32. KTO's do not compare, since TRL estimates its KL
from the neighbours in a batch of fixed order; nor a reward model's, whose random head is another draw.
"""

from pathlib import Path

import harness
from dpo import checks, losses, runtime, stage_settings
from harness import Bench, Run

STAGES = {"sft": "sft", "kto": "kto", "reward": "reward_model"}
METHODS = {
    "sft": ["method=sft", "method.target=sft", "stages.sft.validation_prompts=0"],
    "kto": ["method=only-kto", "stages.kto.validation_prompts=0"],
    "reward": ["method=ppo", "method.target=reward_model", "stages.reward_model.head_learning_rate=null"],
}


def arguments(argv: list[str] | None = None) -> Bench:
    return harness.bench("trainers", __doc__, ["gpt2"], ["hh"], argv, list(STAGES))


def measure_all(bench: Bench) -> None:
    for model, shape, precision in bench.cases():
        for method in bench.options.method:
            measure(bench, method, model, shape, precision)


def measure(bench: Bench, method: str, model: str, shape: str, precision: str) -> None:
    steps = bench.options.steps or (2 if bench.options.quick else {"cpu": 5, "cuda": 30}[bench.device])
    batch = bench.options.batch or (4 if bench.options.quick else {"cpu": 8, "cuda": 32}[bench.device])
    spec = {
        "method": method, "seed": 1, "steps": steps, "batch": batch,
        "micro_batch": min(batch, {"cpu": 4, "cuda": 32}[bench.device]),
        "forward_batch": {"cpu": 8, "cuda": 32}[bench.device], "learning_rate": 5e-5, "beta": 0.1,
    }  # fmt: skip
    world, stage = bench.world(model, shape, steps * batch), STAGES[method]

    def ours(folder: Path) -> Run:
        words = [*world.overrides, *METHODS[method], *stage_settings(stage, spec, precision), *runtime(spec)]
        return bench.ours(folder, precision, words) | {"losses": losses(folder, stage)}

    def peer(folder: Path) -> Run:
        return bench.peer(folder, precision, spec | {"model": str(world.policy), "rows": str(world.train)})

    def compare(folder: Path) -> dict[str, object]:
        runs, peers = bench.in_turn(folder, ours, peer if bench.has_peer() else None)
        step = harness.median_ratio(harness.mean_steps(runs), harness.mean_steps(peers))
        return {
            "summary": {"step": step} | harness.memory(runs, peers, bench.device),
            "checks": checks(runs, peers, precision) if method == "sft" else {},
            "runs": {"ours": runs, "peer": peers},
        }

    bench.case(f"{method}-{model}-{shape}-{precision}", compare, model=model, rows=shape, precision=precision, **spec)


if __name__ == "__main__":
    harness.work(arguments(), measure_all)
