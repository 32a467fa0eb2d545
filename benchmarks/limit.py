"""How far N answers to a prompt show what is attainable: the share of the truth, by KL.

    python benchmarks/limit.py

The reference is the synthetic world itself, whose answers cost nothing: 32 prompts, and 16,384 answers to each stand
for the truth. Smaller N are parts of other answers, the mean over 16 of them. Beside it Gaussian rewards, whose truth
is known: at a KL the most is √(2 KL).
"""

from random import Random

import numpy as np

from prefsweep.data.datasets.synthetic import _continue, preferences, true_reward
from prefsweep.evaluation.frontier import Array, gaussian_share, tilted

PROMPTS, TRUTH, TIMES = 32, 16_384, 16
COUNTS, KLS = (16, 64, 256, 1024), (0.5, 1.0, 2.0, 3.0, 4.0)
COHERENCE = 0.74


def rewards(prompts: list[str], count: int, seed: int) -> Array:
    """[prompts, count]"""
    rng = Random(seed)
    return np.array([[true_reward(_continue(rng, prompt, COHERENCE)) for _ in range(count)] for prompt in prompts])


def gained(scores: Array) -> list[float]:
    """At each KL; NaN past what so many answers can reach."""
    kl, value = tilted(scores, scores).mean()
    return list(np.interp(KLS, kl, value - value[0], right=np.nan))


def main() -> None:
    prompts = [row.prompt for row in preferences(PROMPTS, seed=0, coherence=COHERENCE, noise=0)]
    truth = np.array(gained(rewards(prompts, TRUTH, 0)))
    print("true gain", *(f"{value:.3f}" for value in truth), sep=" | ")
    for count in COUNTS:
        pool = rewards(prompts, count * TIMES, count)
        found = [gained(part) for part in np.split(pool, TIMES, axis=1)]
        shares = np.mean(found, axis=0) / truth
        print(f"world, N = {count}", *(f"{share:.3f}" for share in shares), sep=" | ")
        known = [gaussian_share(count, kl) if kl < np.log(count) else np.nan for kl in KLS]
        print(f"Gaussian, N = {count}", *(f"{share:.3f}" for share in known), sep=" | ")


if __name__ == "__main__":
    main()
