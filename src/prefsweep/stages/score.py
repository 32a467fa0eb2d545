"""score: each sample's score by a scorer. Another judge is another score stage; no answer is sampled again."""

from pathlib import Path
from typing import Any

from prefsweep.config import ScoreConfig, ScorerConfig
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
    rows = read_rows(samples / SAMPLES)
    scorer = load_scorer(judge, device(context.runtime), judge_model)
    measures = scorer.score([row["prompt"] for row in rows], [row["answer"] for row in rows])
    for number, row in enumerate(rows):
        row["scores"] = {name: values[number] for name, values in measures.items()}
    write_rows(folder / SAMPLES, rows)
    return {name: sum(values) / len(values) for name, values in measures.items()}
