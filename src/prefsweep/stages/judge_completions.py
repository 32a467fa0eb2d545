"""score: each sample's score by a scorer. Another judge is another score stage; no answer is sampled again."""

from pathlib import Path
from typing import Any

from prefsweep.config.schema import ScorerConfig
from prefsweep.config.stages import JudgeCompletionsConfig
from prefsweep.models.loading import device
from prefsweep.models.scorers import load_scorer
from prefsweep.pipeline.stage import Context
from prefsweep.stages.generate import SAMPLES, read_rows, write_rows
from prefsweep.stages.scoring import measures


def run(
    config: JudgeCompletionsConfig,
    *,
    judge: ScorerConfig,
    folder: Path,
    context: Context,
    completions: Path,
    judge_model: Path | None = None,
) -> dict[str, Any]:
    return scored(judge, judge_model, completions, folder, context)


def by_reward(
    config: JudgeCompletionsConfig,
    *,
    reward: ScorerConfig,
    folder: Path,
    context: Context,
    completions: Path,
    reward_model: Path | None = None,
) -> dict[str, Any]:
    return scored(reward, reward_model, completions, folder, context)


def scored(
    scorer: ScorerConfig, trained: Path | None, completions: Path, folder: Path, context: Context
) -> dict[str, Any]:
    """The completions again, each with its `scores`."""
    rows = read_rows(completions / SAMPLES)
    loaded = load_scorer(scorer, device(context.runtime), trained)
    found = measures(
        loaded, [row["prompt"] for row in rows], [row["completion"] for row in rows], "completions", context
    )
    for number, row in enumerate(rows):
        row["scores"] = {name: values[number] for name, values in found.items()}
    write_rows(folder / SAMPLES, rows)
    return {name: sum(values) / len(values) for name, values in found.items()}
