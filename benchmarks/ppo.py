"""PPO beside TRL 1.12's PPOTrainer, the last that TRL had, with the settings of its notebook on IMDB.

    python benchmarks/ppo.py --device cpu --method shared separate --precision fp32 bf16

TRL trains a value model of the policy's size; ours by default a value head on the policy's own trunk (`shared`), which
is less work, or such a model (`separate`). `iteration`: seconds from the end of one to that of the next: completions,
scores, old and reference log-probabilities, four epochs of updates. The reward that ours reaches at the KL that both
reach must not be below TRL's by more than two standard errors of a batch's mean.
"""

import json
import math
from pathlib import Path

import harness
from dpo import runtime, stage_precision
from harness import Bench, Run

TOKENS, EPOCHS, KL_COEF = 16, 4, 0.05


def arguments(argv: list[str] | None = None) -> Bench:
    return harness.bench("ppo", __doc__, ["gpt2"], ["imdb"], argv, ["shared", "separate"])


def measure_all(bench: Bench) -> None:
    for model, shape, precision in bench.cases():
        for critic in bench.options.method[: 1 if bench.options.quick else None]:
            measure(bench, critic, model, shape, precision)


def measure(bench: Bench, critic: str, model: str, shape: str, precision: str) -> None:
    steps = bench.options.steps or (2 if bench.options.quick else {"cpu": 5, "cuda": 20}[bench.device])
    batch = bench.options.batch or (8 if bench.options.quick else {"cpu": 32, "cuda": 128}[bench.device])
    spec = {
        "method": "ppo", "steps": steps, "batch": batch, "minibatch": batch, "micro_batch": batch,
        "epochs": EPOCHS, "forward_batch": batch, "learning_rate": 1.41e-5, "tokens": TOKENS, "kl_coef": KL_COEF,
    }  # fmt: skip
    world = bench.world(model, shape, max(64, steps * batch))
    settings = {
        "iterations": steps, "batch_size": batch, "minibatch_size": batch, "epochs": EPOCHS, "critic": critic,
        "learning_rate": spec["learning_rate"], "schedule": "constant", "kl_coef": KL_COEF,
        "response_tokens": f"[{TOKENS},{TOKENS}]", "score_normalisation": "none", "target_kl": "null",
        "validation_prompts": 2, "precision": stage_precision(precision),
    }  # fmt: skip

    def ours(folder: Path) -> Run:
        scorer = ["scorer@reward=distilbert-imdb", f"reward.path={world.scorer}", "method=ppo", "method.target=ppo"]
        stages = [f"stages.ppo.{name}={value}" for name, value in settings.items()]
        words = [*world.overrides, *scorer, *stages, *runtime(spec), f"seed={seed_of(folder)}"]
        return bench.ours(folder, precision, words) | history(folder, "ppo")

    def peer(folder: Path) -> Run:
        paths = {"model": str(world.policy), "scorer": str(world.scorer), "rows": str(world.train)}
        return bench.peer(folder, precision, spec | paths | {"seed": seed_of(folder)}, bench.options.peer_ppo)

    def compare(folder: Path) -> dict[str, object]:
        runs, peers = bench.in_turn(folder, ours, peer if bench.has_peer(bench.options.peer_ppo) else None)
        iteration = harness.median_ratio(harness.mean_steps(runs, steps), harness.mean_steps(peers, steps))
        return {
            "summary": {"iteration": iteration} | harness.memory(runs, peers, bench.device),
            "checks": checks(runs, peers, batch),
            "runs": {"ours": runs, "peer": peers},
        }

    bench.case(f"{critic}-{model}-{precision}", compare, model=model, rows=shape, precision=precision, **spec)


def seed_of(folder: Path) -> int:
    """Return another seed for each turn of a side, whose folder ends with the turn's number: rewards are a mean."""
    return 1 + int(folder.name.rpartition("-")[2])


def history(folder: Path, stage: str) -> Run:
    """Return reward and KL of each iteration of the stage of this name that was built in a folder."""
    (path,) = (folder / "outputs/stages" / stage).glob("*/history.jsonl")
    rows = [row for row in map(json.loads, path.read_text().splitlines()) if "score/mean" in row]
    return {
        "reward": [row["score/mean"] for row in rows],
        "kl": [row["kl"] for row in rows],
        "reward_std": [row["score/std"] for row in rows if "score/std" in row],
    }


def checks(ours: list[Run], peers: list[Run], batch: int) -> dict[str, object]:
    """Compare the rewards at the KL that both reach last, as means over the runs of each side."""
    curves = [[sorted(zip(run["kl"], run["reward"], strict=True)) for run in runs] for runs in (ours, peers)]
    if not all(curves) or not all(curve for side in curves for curve in side):
        return {}
    kl = min(curve[-1][0] for side in curves for curve in side)
    mine, theirs = ([harness.reward_at(curve, kl) for curve in side] for side in curves)
    spread = max((deviation for run in ours for deviation in run["reward_std"]), default=0.0)
    margin = 2 * spread * math.sqrt(1 / (batch * len(mine)) + 1 / (batch * len(theirs)))
    means = {"reward_at_kl_ours": sum(mine) / len(mine), "reward_at_kl_peer": sum(theirs) / len(theirs)}
    return {"kl": kl, **means, "no_worse": means["reward_at_kl_ours"] >= means["reward_at_kl_peer"] - margin}


if __name__ == "__main__":
    harness.work(arguments(), measure_all)
