"""judge_validation: the judge's score of what a policy generated at each validation of its training.

It reads `validation.jsonl` when the training is done, so the judge cannot influence what is trained; and one judge
compares methods that validate by different quantities: DPO by pairs, SFT by a loss, PPO by its own reward.
"""

from pathlib import Path
from statistics import fmean
from typing import Any

from prefsweep.config.schema import ScorerConfig
from prefsweep.config.stages import JudgeCompletionsConfig
from prefsweep.models.loading import device
from prefsweep.models.scorers import load_scorer
from prefsweep.pipeline.files import read_jsonl, write_jsonl
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
    rows = list(read_jsonl(trained / COMPLETIONS))
    scorer = load_scorer(judge, device(context.runtime), judge_model)
    # A policy that has stopped moving repeats its completions: each text is scored once.
    texts = list(dict.fromkeys((row["prompt"], row["completion"]) for row in rows))
    prompts, completions = [prompt for prompt, _ in texts], [completion for _, completion in texts]
    scores = measures(scorer, prompts, completions, "completions", context)["score"]
    score_of = dict(zip(texts, scores, strict=True))
    by_step: dict[int, list[float]] = {}
    for row in rows:
        row["judge"] = score_of[row["prompt"], row["completion"]]
        by_step.setdefault(row["step"], []).append(row["judge"])
    context.history.rewind(-1)  # a killed build may have written part of it
    for step, step_scores in sorted(by_step.items()):
        context.history.append(step, {"validation/judge": fmean(step_scores)})
    write_jsonl(folder / COMPLETIONS, rows)
    return {"completions": len(rows), "validations": len(by_step)}
