"""The stages in which a scorer scores: judge_completions, frontier_rewards, judge_validation and judge_accuracy.

No stage that trains reads their results, so the judge cannot influence what is trained. Another judge is another such
stage; nothing is generated again.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from tqdm.auto import tqdm

from prefsweep.config.schema import DatasetConfig, ScorerConfig
from prefsweep.config.stages import EvaluationConfig, JudgeAccuracyConfig
from prefsweep.data.sources import load_ranked
from prefsweep.evaluation import judged
from prefsweep.models.loading import device
from prefsweep.models.scorers import Measures, Scorer, flops_of, load_scorer
from prefsweep.pipeline.files import Row, append_jsonl, read_jsonl, recover_jsonl, write_jsonl
from prefsweep.pipeline.stage import Context
from prefsweep.stages.generate import SAMPLES
from prefsweep.stages.generation_callback import COMPLETIONS

PAIRS = "pairs.jsonl"
SIDES = ("chosen", "rejected")
SCORED = ("prompt", "completion", "ended")  # what a scorer reads of a row
FLOPS = "flops"  # a text's share of its part, stored with its scores so that a later attempt can count it
PART = 512  # texts scored between two saves: enough that texts of similar length share a batch


def judge_completions(
    config: EvaluationConfig,
    *,
    folder: Path,
    context: Context,
    completions: Path,
    judge: ScorerConfig | None = None,
    judge_model: Path | None = None,
    reward: ScorerConfig | None = None,
    reward_model: Path | None = None,
) -> dict[str, Any]:
    """Write the completions with the judge's measures as `scores`, and return the mean of each measure.

    The stage `frontier_rewards` is the same by the reward that a method optimises.
    """
    rows = list(read_jsonl(completions / SAMPLES))
    section = judge or reward
    assert section is not None  # one of them is in the stage's `reads`
    scorer = load_scorer(section, device(context.runtime), judge_model or reward_model)
    columns = measures(scorer, *columns_of(rows), "completions", context)
    scored = [
        row | {"scores": {name: values[index] for name, values in columns.items()}} for index, row in enumerate(rows)
    ]
    write_jsonl(folder / SAMPLES, scored)
    return {name: sum(values) / len(values) for name, values in columns.items()}


def judge_validation(
    config: EvaluationConfig,
    *,
    judge: ScorerConfig,
    folder: Path,
    context: Context,
    trained: Path,
    judge_model: Path | None = None,
) -> dict[str, Any]:
    """Score what a policy generated at each validation of its training, when that is done.

    One judge compares methods that validate by different quantities: DPO by pairs, SFT by a loss, PPO by its reward.
    """
    rows = list(read_jsonl(trained / COMPLETIONS))
    scorer = load_scorer(judge, device(context.runtime), judge_model)
    by_step: dict[int, list[float]] = {}
    for row, values in zip(rows, measures_of_rows(scorer, rows, context), strict=True):
        row["judge"] = values["score"]
        by_step.setdefault(row["step"], []).append(row["judge"])
    context.history.rewind(-1)  # a killed build may have written part of it
    for step, step_scores in sorted(by_step.items()):
        context.history.append(step, {"validation/judge": fmean(step_scores)})
    write_jsonl(folder / COMPLETIONS, rows)
    return {"completions": len(rows), "validations": len(by_step)}


def measures_of_rows(scorer: Scorer, rows: Sequence[Row], context: Context) -> list[dict[str, float]]:
    """Return the measures of each row; equal ones are scored once: a policy that hardly moves repeats itself."""
    texts = [tuple(row[name] for name in SCORED) for row in rows]
    distinct = dict(zip(texts, rows, strict=True))
    columns = measures(scorer, *columns_of(list(distinct.values())), "completions", context)
    indices = {text: index for index, text in enumerate(distinct)}
    return [{name: column[indices[text]] for name, column in columns.items()} for text in texts]


def judge_accuracy(
    config: JudgeAccuracyConfig,
    *,
    dataset: DatasetConfig,
    judge: ScorerConfig,
    folder: Path,
    context: Context,
    judge_model: Path | None = None,
) -> dict[str, Any]:
    """Score the test pairs, and return how often the judge prefers the chosen completion. All runs with it share this.

    Its accuracy stands beside that of length alone: a judge that is no better says little about completions that differ
    in length.
    """
    examples = load_ranked(dataset, "test")
    pairs = [pair for pair in examples[: config.pairs] if pair.chosen is not None and pair.rejected is not None]
    scorer = load_scorer(judge, device(context.runtime), judge_model)
    prompts = [pair.prompt for pair in pairs]
    texts = {side: [pair.completion(side) for pair in pairs] for side in SIDES}
    ended = {side: [getattr(pair, f"{side}_ended") for pair in pairs] for side in SIDES}
    measured = {side: measures(scorer, prompts, texts[side], ended[side], side, context) for side in SIDES}
    rows = [
        {
            "id": pair.id,
            **{side: measured[side]["score"][index] for side in SIDES},
            **{f"{side}_length": len(texts[side][index]) for side in SIDES},
        }
        for index, pair in enumerate(pairs)
    ]
    write_jsonl(folder / PAIRS, rows)
    agreement = judged.agreement(rows) if rows else {}  # reviews whose file has no labels make no pairs
    return agreement | truncation(measured) | examples.metrics()


def truncation(measured: dict[str, Measures]) -> dict[str, float]:
    """Return the shares of pairs of which the judge read one text cut, or without most of its prompt."""
    chosen, rejected = (measured[side] for side in SIDES)
    return {
        f"judge/pairs_{name}": fmean(map(max, chosen[name], rejected[name]))
        for name in ("truncated", "prompt_mostly_truncated")
        if chosen.get(name)
    }


def columns_of(rows: Sequence[Row]) -> tuple[list[str], list[str], list[bool]]:
    """Return what a scorer reads of generated completions: prompts, completions, and whether each ended."""
    prompts, completions, ended = ([row[name] for row in rows] for name in SCORED)
    return prompts, completions, ended


def measures(
    scorer: Scorer,
    prompts: Sequence[str],
    completions: Sequence[str],
    ended: Sequence[bool],
    name: str,
    context: Context,
) -> Measures:
    """Return `scorer.score(prompts, completions, ended)`, in parts: a text's score does not depend on the others."""
    path = context.checkpoints / f"{name}-scores.jsonl"
    rows = recover_jsonl(path)
    bar = tqdm(total=len(completions), desc=f"score {name}", unit="text", disable=not context.runtime.progress or None)
    bar.update(len(rows))
    for first in range(len(rows), len(completions), PART):
        part = slice(first, first + PART)
        before = flops_of(scorer)
        columns = scorer.score(list(prompts[part]), list(completions[part]), ended[part])
        new = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        flops = (flops_of(scorer) - before) / len(new)
        new = [row | {FLOPS: flops} for row in new]
        append_jsonl(path, new)
        rows += new
        bar.update(len(new))
    bar.close()
    context.cost.add(flops=round(sum(row.pop(FLOPS) for row in rows)))
    return {measure: [row[measure] for row in rows] for measure in (rows[0] if rows else ("score",))}
