"""How much of the optimal gain in reward N completions of a prompt show, by KL.

    python benchmarks/frontier.py

The reference is the synthetic world itself, whose completions cost nothing: 32 prompts, with 16,384 completions of each
as the truth. Each smaller N is the mean over 16 independent sets of completions. Beside it Gaussian rewards, whose
optimal gain is known: √(2 KL) times their standard deviation, which is 1 for all prompts or differs between them.
"""

from random import Random

import numpy as np

from prefsweep.data.datasets.synthetic import _continue, preferences, true_reward
from prefsweep.evaluation.frontier import Array, tilted, trusted_kl

PROMPTS, TRUTH, REPEATS = 32, 16_384, 16
COUNTS, KLS = (16, 64, 256, 1024), (0.5, 1.0, 2.0, 3.0, 4.0)
COHERENCE, SPREADS = 0.74, (0.0, 0.5)


def rewards(prompts: list[str], count: int, seed: int) -> Array:
    """Return [prompts, count] the rewards of the world's completions."""
    rng = Random(seed)
    return np.array([[true_reward(_continue(rng, prompt, COHERENCE)) for _ in range(count)] for prompt in prompts])


def optimal_gains(scores: Array) -> list[float]:
    """Return the optimal gain at each KL; NaN past the KL that so many completions can reach."""
    kl, value = tilted(scores, scores).mean()
    return list(np.interp(KLS, kl, value - value[0], right=np.nan))


def gaussian(count: int, spread: float) -> tuple[list[float], float]:
    """Return the share shown of Gaussian rewards' optimum at each KL, and the KL to which it is trusted.

    The prompts' standard deviations are log-normal with that `spread`.
    """
    rng = np.random.default_rng(0)
    deviations = np.exp(spread * rng.standard_normal((512, 1)))
    scores = deviations * rng.standard_normal((512, count))
    truth = np.sqrt(2 * np.array(KLS) * (deviations**2).mean())
    return list(optimal_gains(scores) / truth), trusted_kl(scores, 0.9)


def main() -> None:
    prompts = [row.prompt for row in preferences(PROMPTS, seed=0, coherence=COHERENCE, noise=0)]
    truth = np.array(optimal_gains(rewards(prompts, TRUTH, 0)))
    print("true gain", *(f"{value:.3f}" for value in truth), sep=" | ")
    for count in COUNTS:
        sets = np.split(rewards(prompts, count * REPEATS, count), REPEATS, axis=1)
        shares = np.mean([optimal_gains(scores) for scores in sets], axis=0) / truth
        print(f"world, N = {count}", *(f"{share:.3f}" for share in shares), sep=" | ")
        print(f"world, N = {count}, trusted to", f"{trusted_kl(sets[0], 0.9):.1f}", sep=" | ")
        for spread in SPREADS:
            shares, end = gaussian(count, spread)
            print(f"Gaussian, spreads {spread}, N = {count}", *(f"{share:.3f}" for share in shares), sep=" | ")
            print(f"Gaussian, spreads {spread}, N = {count}, trusted to", f"{end:.1f}", sep=" | ")


if __name__ == "__main__":
    main()
