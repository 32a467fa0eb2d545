"""validate: the judge's score of what a policy answered at each validation of its training.

It reads `validation.jsonl` when the training is done, so the judge has no way into what is trained; and one judge puts
on one axis the methods that themselves validate by other things: dpo by pairs, sft by a loss, ppo by its own reward.
"""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

from prefsweep.config.schema import ScorerConfig
from prefsweep.config.stages import JudgeCompletionsConfig
from prefsweep.models.loading import device
from prefsweep.models.scorers import load_scorer
from prefsweep.pipeline.history import History
from prefsweep.pipeline.stage import Context
from prefsweep.stages.generation_callback import COMPLETIONS
from prefsweep.stages.scoring import measures


def run(
    config: JudgeCompletionsConfig,
    *,
    judge: ScorerConfig,
    folder: Path,
    context: Context,
    trained: Path,
    judge_model: Path | None = None,
) -> dict[str, Any]:
    rows = list(History(trained / COMPLETIONS).rows())
    scorer = load_scorer(judge, device(context.runtime), judge_model)
    # A policy that has stopped moving gives the same answers again: each is scored once.
    asked = list({(row["prompt"], row["completion"]): None for row in rows})
    found = measures(
        scorer, [prompt for prompt, _ in asked], [completion for _, completion in asked], "completions", context
    )
    score = dict(zip(asked, found["score"], strict=True))
    by_step: dict[int, list[float]] = {}
    for row in rows:
        row["judge"] = score[row["prompt"], row["completion"]]
        by_step.setdefault(row["step"], []).append(row["judge"])
    context.history.rewind(-1)  # a killed build has told some of it
    for step, scores in sorted(by_step.items()):
        context.history.append(step, {"validation/judge": fmean(scores)})
    (folder / COMPLETIONS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"completions": len(rows), "validations": len(by_step)}
