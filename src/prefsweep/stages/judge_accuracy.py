"""judge_accuracy: the judge's scores of the test pairs, and how often it prefers the chosen completion.

All runs with this judge and dataset share it. Its accuracy stands beside that of length alone: a judge that is no
better says little about completions that differ in length.
"""

from pathlib import Path
from typing import Any

from prefsweep.config.schema import DatasetConfig, ScorerConfig
from prefsweep.config.stages import JudgeAccuracyConfig
from prefsweep.data.sources import load
from prefsweep.evaluation import judged
from prefsweep.models.loading import device
from prefsweep.models.scorers import load_scorer
from prefsweep.pipeline.files import write_jsonl
from prefsweep.pipeline.stage import Context
from prefsweep.stages.scoring import measures

PAIRS = "pairs.jsonl"
SIDES = ("chosen", "rejected")


def run(
    config: JudgeAccuracyConfig,
    *,
    dataset: DatasetConfig,
    judge: ScorerConfig,
    folder: Path,
    context: Context,
    judge_model: Path | None = None,
) -> dict[str, Any]:
    examples = load(dataset, "test")
    pairs = [pair for pair in examples[: config.pairs] if pair.chosen is not None and pair.rejected is not None]
    scorer = load_scorer(judge, device(context.runtime), judge_model)
    prompts = [pair.prompt for pair in pairs]
    texts = {side: [pair.completion(side) for pair in pairs] for side in SIDES}
    scores = {side: measures(scorer, prompts, texts[side], side, context)["score"] for side in SIDES}
    rows = [
        {
            "id": pair.id,
            **{side: scores[side][index] for side in SIDES},
            **{f"{side}_length": len(texts[side][index]) for side in SIDES},
        }
        for index, pair in enumerate(pairs)
    ]
    write_jsonl(folder / PAIRS, rows)
    return judged.agreement(rows) | examples.metrics()
