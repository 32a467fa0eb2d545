"""score: each sample's score by a scorer. Another judge is another score stage; no answer is sampled again."""

from pathlib import Path
from typing import Any

from prefsweep.config import RuntimeConfig, ScoreConfig, ScorerConfig
from prefsweep.models.loading import device
from prefsweep.models.scorers import load_scorer
from prefsweep.pipeline.stage import Context
from prefsweep.stages.sample import SAMPLES, read_rows, write_rows


def run(
    config: ScoreConfig,
    *,
    judge: ScorerConfig,
    folder: Path,
    context: Context,
    samples: Path,
    judge_model: Path | None = None,
) -> dict[str, Any]:
    return scored(judge, judge_model, samples, folder, context.runtime)


def by_reward(
    config: ScoreConfig,
    *,
    reward: ScorerConfig,
    folder: Path,
    context: Context,
    samples: Path,
    reward_model: Path | None = None,
) -> dict[str, Any]:
    return scored(reward, reward_model, samples, folder, context.runtime)


def scored(
    scorer: ScorerConfig, trained: Path | None, samples: Path, folder: Path, runtime: RuntimeConfig
) -> dict[str, Any]:
    """The samples again, each with its `scores`."""
    rows = read_rows(samples / SAMPLES)
    loaded = load_scorer(scorer, device(runtime), trained)
    measures = loaded.score([row["prompt"] for row in rows], [row["answer"] for row in rows])
    for number, row in enumerate(rows):
        row["scores"] = {name: values[number] for name, values in measures.items()}
    write_rows(folder / SAMPLES, rows)
    return {name: sum(values) / len(values) for name, values in measures.items()}
