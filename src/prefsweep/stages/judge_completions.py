"""judge_completions: score each completion. Another judge is another such stage; nothing is generated again."""

from pathlib import Path
from typing import Any

from prefsweep.config.schema import ScorerConfig
from prefsweep.config.stages import JudgeCompletionsConfig
from prefsweep.models.loading import device
from prefsweep.models.scorers import load_scorer
from prefsweep.pipeline.files import read_jsonl, write_jsonl
from prefsweep.pipeline.stage import Context
from prefsweep.stages.generate import SAMPLES
from prefsweep.stages.scoring import measures


def run(
    config: JudgeCompletionsConfig,
    *,
    judge: ScorerConfig,
    folder: Path,
    context: Context,
    samples: Path,
    judge_model: Path | None = None,
) -> dict[str, Any]:
    return score_samples(judge, judge_model, samples, folder, context)


def by_reward(
    config: JudgeCompletionsConfig,
    *,
    reward: ScorerConfig,
    folder: Path,
    context: Context,
    samples: Path,
    reward_model: Path | None = None,
) -> dict[str, Any]:
    return score_samples(reward, reward_model, samples, folder, context)


def score_samples(
    scorer: ScorerConfig, trained: Path | None, samples: Path, folder: Path, context: Context
) -> dict[str, Any]:
    """Write the rows of `samples` with the scorer's measures as `scores`, and return the mean of each measure."""
    rows = list(read_jsonl(samples / SAMPLES))
    loaded = load_scorer(scorer, device(context.runtime), trained)
    texts = [row["prompt"] for row in rows], [row["completion"] for row in rows]
    columns = measures(loaded, *texts, "completions", context)
    scored = [
        row | {"scores": {name: values[index] for name, values in columns.items()}} for index, row in enumerate(rows)
    ]
    write_jsonl(folder / SAMPLES, scored)
    return {name: sum(values) / len(values) for name, values in columns.items()}
