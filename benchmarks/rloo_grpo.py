"""RLOO and GRPO beside TRL's trainers: the same prompts, model, scorer and number of completions a step.

    python benchmarks/rloo_grpo.py --device cpu --method rloo grpo --precision fp32 bf16

`iteration`: seconds from the end of one to that of the next: a batch is completed, scored and learned from once.
"""

from pathlib import Path

import harness
from dpo import runtime, stage_precision
from harness import Bench, Run
from ppo import history

GROUP, TOKENS, KL_COEF = 4, 24, 0.05


def arguments(argv: list[str] | None = None) -> Bench:
    return harness.bench("rloo_grpo", __doc__, ["gpt2"], ["imdb"], argv, ["rloo", "grpo"])


def measure_all(bench: Bench) -> None:
    for model, shape, precision in bench.cases():
        for method in bench.options.method:
            measure(bench, method, model, shape, precision)


def measure(bench: Bench, method: str, model: str, shape: str, precision: str) -> None:
    steps = bench.options.steps or (2 if bench.options.quick else {"cpu": 4, "cuda": 15}[bench.device])
    batch = bench.options.batch or (8 if bench.options.quick else {"cpu": 32, "cuda": 128}[bench.device])
    spec = {
        "method": method, "seed": 1, "steps": steps, "batch": batch, "micro_batch": batch, "forward_batch": batch,
        "learning_rate": 1.41e-5, "group": GROUP, "tokens": TOKENS, "kl_coef": KL_COEF,
    }  # fmt: skip
    world = bench.world(model, shape, max(64, steps * batch))
    settings = {
        "iterations": steps, "batch_size": batch, "minibatch_size": batch, "epochs": 1, "group_size": GROUP,
        "learning_rate": spec["learning_rate"], "schedule": "constant", "kl_coef": KL_COEF,
        "response_tokens": f"[{TOKENS},{TOKENS}]", "score_normalisation": "none", "target_kl": "null",
        "validation_prompts": 2, "precision": stage_precision(precision),
    }  # fmt: skip

    def ours(folder: Path) -> Run:
        scorer = ["scorer@reward=distilbert-imdb", f"reward.path={world.scorer}", f"method={method}"]
        stages = [f"stages.{method}.{name}={value}" for name, value in settings.items()]
        words = [*world.overrides, *scorer, f"method.target={method}", *stages, *runtime(spec)]
        return bench.ours(folder, precision, words) | history(folder, method)

    def peer(folder: Path) -> Run:
        paths = {"model": str(world.policy), "scorer": str(world.scorer), "rows": str(world.train)}
        return bench.peer(folder, precision, spec | paths)

    def compare(folder: Path) -> dict[str, object]:
        runs, peers = bench.in_turn(folder, ours, peer if bench.has_peer() else None)
        iteration = harness.median_ratio(harness.mean_steps(runs, steps), harness.mean_steps(peers, steps))
        return {
            "summary": {"iteration": iteration} | harness.memory(runs, peers, bench.device),
            "runs": {"ours": runs, "peer": peers},
        }

    bench.case(f"{method}-{model}-{precision}", compare, model=model, rows=shape, precision=precision, **spec)


if __name__ == "__main__":
    harness.work(arguments(), measure_all)
