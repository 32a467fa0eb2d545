"""course_samples and judge_course: how score, KL and length of the policy moved along its training.

Every state that the training kept (`save_every`) is a policy like its result: it completes the first prompts of
`generate` with the same random numbers, its KL is measured as `evaluate` measures it, and the judge scores it like any
other. Step 0 is the policy that the training started from; the result is a state too, kept by `save_every` or not.
"""

import json
from pathlib import Path
from typing import Any

from prefsweep.config.schema import DatasetConfig, ModelConfig, ScorerConfig
from prefsweep.config.stages import CourseSamplesConfig, EvaluationConfig
from prefsweep.evaluation import divergence, text
from prefsweep.evaluation.values import joined, means
from prefsweep.models.loading import device, load_policy, load_tokenizer
from prefsweep.models.scorers import load_scorer
from prefsweep.pipeline.files import Row, append_jsonl, read_jsonl, recover_jsonl, write_jsonl
from prefsweep.pipeline.stage import Context
from prefsweep.pipeline.store import RECORD
from prefsweep.stages.callbacks import STEPS
from prefsweep.stages.generate import SAMPLES, completion_requests, evaluation_examples, generate_completions
from prefsweep.stages.judging import SCORED, measures_of_rows

COURSE = "course.jsonl"
SHOWN = ("id", "group", "sample", *SCORED)  # of each row beside its step and values


def generate_states(
    config: CourseSamplesConfig,
    *,
    model: ModelConfig,
    dataset: DatasetConfig,
    folder: Path,
    context: Context,
    trained: Path,
    base_policy: Path | None = None,
    start_policy: Path | None = None,
) -> dict[str, Any]:
    """Write every state's completions with their `values`: KL, length and the others that need no judge.

    A state that an earlier attempt finished is one line among the checkpoints, and is not computed again.
    """
    tokenizer, where = load_tokenizer(model, trained), device(context.runtime)
    examples, data_metrics = evaluation_examples(config, dataset, tokenizer)
    requests = completion_requests(config, examples, tokenizer)
    base = load_policy(model, base_policy).to(where).eval()
    start = base if start_policy == base_policy else load_policy(model, start_policy).to(where).eval()

    def state_rows(step: int, state: Path | None) -> list[Row]:
        policy = start if state is None else load_policy(model, state).to(where).eval()
        rows = generate_completions(config, lambda: policy, tokenizer, requests, dataset, f"state-{step}", context)
        texts = [{f"text/{name}": value for name, value in text.plain(row).items()} for row in rows]
        forward = divergence.Forward(tokenizer.pad_token_id, context.runtime.forward_batch, config.precision)
        values = joined(texts, divergence.values(policy, base, start, rows, forward, config.temperature == 1))
        context.cost.add(flops=forward.flops)
        pairs = zip(rows, values, strict=True)
        return [{"step": step, **{key: row[key] for key in SHOWN}, "values": value} for row, value in pairs]

    path = context.checkpoints / "states.jsonl"
    done = recover_jsonl(path)
    for state in done:
        context.cost.add(**state["counts"])
    for step, folder_of_state in list(states(trained).items())[len(done) :]:
        before = dict(context.cost.counts)
        rows = state_rows(step, folder_of_state)
        counts = {name: count - before[name] for name, count in context.cost.counts.items()}
        done.append({"counts": counts, "rows": rows})
        append_jsonl(path, done[-1:])
    write_jsonl(folder / SAMPLES, (row for state in done for row in state["rows"]))
    return {"states": len(done), "samples": len(done) * len(requests), **data_metrics}


def states(trained: Path) -> dict[int, Path | None]:
    """Return the folder of each state of a training by its step, in order; None is the policy that it started from."""
    metrics = json.loads((trained / RECORD).read_text())["metrics"]
    last = metrics.get("iterations", metrics.get("steps"))
    saved = {int(folder.name): folder for folder in (trained / STEPS).glob("[0-9]*")}
    # The result is the state of its last validation, or of the last step where a guard has stopped the training.
    result = last if "diverged" in metrics else metrics["step"]
    return dict(sorted({0: None, result: trained, **saved}.items()))


def judge_states(
    config: EvaluationConfig,
    *,
    judge: ScorerConfig,
    folder: Path,
    context: Context,
    completions: Path,
    judge_model: Path | None = None,
) -> dict[str, Any]:
    """Write a row a state into `course.jsonl`: the mean of every value over completions, and over each prompt group."""
    rows = list(read_jsonl(completions / SAMPLES))
    measures = measures_of_rows(load_scorer(judge, device(context.runtime), judge_model), rows, context)
    by_step: dict[int, list[Row]] = {}
    for row, measured in zip(rows, measures, strict=True):
        scores = {f"judge/{name}": value for name, value in measured.items()}
        row["values"] = {"judge/mean": scores.pop("judge/score"), **scores, **row["values"]}
        by_step.setdefault(row["step"], []).append(row)
    for step, of_step in by_step.items():
        context.history.announce(step, means([row["values"] for row in of_step]))
    write_jsonl(folder / COURSE, (summary(step, of_step) for step, of_step in by_step.items()))
    return {"states": len(by_step), "completions": len(rows)}


def summary(step: int, rows: list[Row]) -> Row:
    """Return the means of a state's values, and those over each group of prompts, from which intervals follow."""
    by_group: dict[str, list[dict[str, float]]] = {}
    for row in rows:
        by_group.setdefault(row["group"], []).append(row["values"])
    averages = [means(values) for values in by_group.values()]
    columns = {name: [average[name] for average in averages] for name in averages[0]}
    sizes = list(map(len, by_group.values()))
    return {
        "step": step,
        **means([row["values"] for row in rows]),
        "by_group": {"groups": list(by_group), "sizes": sizes, "means": columns},
    }
