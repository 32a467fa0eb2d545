"""The sentences under a table: what every ± and mark in it means, and where its numbers come from."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pandas as pd

from prefsweep.report.cells import FEWEST_SEEDS, Cell
from prefsweep.report.completions import Completions
from prefsweep.report.formatting import number
from prefsweep.report.runs import NAMES, records, stage_file

LABELS = "cost/labels"
WILSON = "a rate's interval, in brackets, is Wilson's for as many independent completions as have this variance"
INTERVALS = {  # by what an interval is over
    "seeds and prompts": "mean over seeds ± half-width of its 95% interval over new seeds and new prompts (variance of "
    "seeds, of prompts and of both together, prompts clustered by group, Satterthwaite's degrees of freedom)",
    "prompts": "the 95% interval of a single run is over prompts alone: another seed may differ by more",
    "seeds": "a metric without values by prompt has the mean over seeds ± half-width of its 95% Student-t "
    "interval, which is over seeds alone",
    "": "a value without an interval is a single run, or equal in all by definition",
}
BOUND = "≤ and ≥: a bound on what is expected of more samples, without interval or mark"
ESTIMATORS = {  # by the estimator of metrics that are no means
    "jackknife": "over prompts the variance of {} is the jackknife's",
    "median": "over prompts the variance of {} is Woodruff's",
}
MARKS = (
    "bold: better than every other row of its column; *: worse than its best; by t-tests of the difference, paired "
    "over seeds and prompts, with the intervals' variance and degrees of freedom, p < .05 after Holm's correction over "
    f"all pairs of rows in the column, from {FEWEST_SEEDS} seeds on"
)


def caption(runs: pd.DataFrame, keys: Sequence[str], cells: Sequence[Cell]) -> str:
    """Return what is equal in all rows, what every ± and mark means, and which runs the numbers stand for."""
    first, counted = runs.iloc[0], runs[runs["has_result"]]
    sources = sorted({cell.published.source for cell in cells if cell.published})
    return joined(
        ", ".join(f"{name} {first[name]}" for name in NAMES if name not in keys),
        *uncertainty(cells),
        f"{prompts_text(counted)} a run" if prompts_text(counted) else "",
        "" if any(cell.metric.name == LABELS for cell in cells) else labels_text(counted),
        MARKS if any(cell.mark is not None for cell in cells) else "",
        f"published: {'; '.join(sources)}" if sources else "",
        "a diverged run that could be judged stays in the mean" if "diverged" in set(counted["status"]) else "",
        listed("warning:", (warning for warnings in counted["warnings"] for warning in warnings)),
        "runs that did not finish have no number here; the last column counts them" if len(counted) < len(runs) else "",
    )


def uncertainty(cells: Iterable[Cell]) -> Iterator[str]:
    """Yield what the intervals of these cells are over, and how those of bounds, rates and other metrics come about."""
    measured = [cell for cell in cells if cell.mean is not None]
    kinds = {cell.over for cell in measured if not cell.metric.bound}
    yield from (text for over, text in INTERVALS.items() if over in kinds)
    if any(cell.metric.bound for cell in measured):
        yield BOUND
    for estimator, text in ESTIMATORS.items():
        cells_of = [cell for cell in measured if cell.metric.estimator == estimator and "prompts" in cell.over]
        if cells_of:
            yield text.format(", ".join(dict.fromkeys(cell.metric.heading for cell in cells_of)))
    if any(cell.is_rate for cell in measured):
        yield WILSON


def joined(*sentences: str) -> str:
    return " ".join(f"{text[0].upper()}{text[1:]}." for text in sentences if text)


def labels_text(runs: pd.DataFrame) -> str:
    """Return `preference labels a run learned from: 0 (base), 1,600 (dpo, ppo)` where methods differ in them."""
    if LABELS not in runs:
        return ""
    ends = runs.groupby("method")[LABELS].agg(["min", "max"]).dropna().map("{:,.0f}".format)
    counts = ends["min"].where(ends["min"] == ends["max"], ends["min"] + "–" + ends["max"])
    methods = [f"{count} ({', '.join(part.index)})" for count, part in counts.groupby(counts, sort=False)]
    return f"preference labels a run learned from: {', '.join(methods)}" if len(methods) > 1 else ""


def decoding(runs: pd.DataFrame) -> dict[str, Any]:
    """Return how the judged completions of runs that share a table were generated; empty where none were."""
    return next(filter(None, runs["decoding"]), {})


def prompts_text(runs: pd.DataFrame) -> str:
    """Return `500 test prompts`."""
    settings = decoding(runs)
    return f"{settings['prompts']} {settings['split']} prompts" if settings else ""


def provenance(runs: pd.DataFrame, completions: Completions, metrics: Sequence[str]) -> str:
    """Return sweep, commit, data, judge and reward with their accuracies, n, seeds, decoding, BLEU's signature."""
    abouts = [about for about in completions.of_runs(runs) if about]
    parts = [
        listed("Sweep", (folder.resolve().parent.name for folder in runs["folder"])),
        listed("commit", (about["commit"][:12] for about in abouts)),
        listed("data", (about["data"] for about in abouts)),
        judge_text(runs),
        reward_text(runs),
        listed("n", (f"{about['prompts']} prompts" for about in abouts)),
        listed("seeds", map(str, runs["seed"])),
        decoding_text(decoding(runs)),
        listed("BLEU", bleu_signatures(runs) if any(name.startswith("text/bleu") for name in metrics) else ()),
    ]
    return "; ".join(filter(None, parts)) + "."


def listed(what: str, values: Iterable[str]) -> str:
    texts = sorted(filter(None, set(values)), key=lambda value: (len(value), value))
    more = f" and {len(texts) - 8} more" if len(texts) > 8 else ""
    return f"{what} {', '.join(texts[:8])}{more}" if texts else ""


def bleu_signatures(runs: pd.DataFrame) -> list[str]:
    """Return how sacrebleu counted, in its own words."""
    paths = (stage_file(run, run["target"], "signatures.json") for run in records(runs[runs["has_result"]]))
    return [json.loads(path.read_text())["text/bleu"] for path in paths if path]


def judge_text(runs: pd.DataFrame) -> str:
    """Return `judge oracle (right on 0.712 of test pairs, length alone 0.570)`."""
    return listed("judge", runs["judge"]) + accuracy_text(runs, "judge", "test")


def reward_text(runs: pd.DataFrame) -> str:
    """Return `reward (right on 0.712 of validation pairs, length alone 0.570)` where runs trained one."""
    accuracy = accuracy_text(runs, "reward", "validation")
    return accuracy and f"reward{accuracy}"


def accuracy_text(runs: pd.DataFrame, scorer: str, split: str) -> str:
    """Return how often a scorer ranks pairs rightly, the mean over the runs that know."""
    words = {f"{scorer}/accuracy": f"right on {{}} of {split} pairs", f"{scorer}/length_accuracy": "length alone {}"}
    values = {name: runs.loc[runs["has_result"], name].dropna() for name in words if name in runs}
    notes = [words[name].format(number(column.mean(), 3)) for name, column in values.items() if len(column)]
    return f" ({', '.join(notes)})" if notes else ""


def decoding_text(settings: dict[str, Any]) -> str:
    """Return `decoding at temperature 1, 1 completion a prompt, at most 128 tokens; win rates against 4 draws …`."""
    if not settings:
        return ""
    temperature, count = settings["temperature"], settings["completions_per_prompt"]
    how = "greedy" if temperature == 0 else f"at temperature {temperature:g}"
    draws = settings.get("opponents")
    against = f"{draws} independent draws of the base" if draws else "the base's completion by the same random numbers"
    length = f"at most {settings['max_new_tokens']} tokens"
    return f"decoding {how}, {count} completion{'s' * (count != 1)} a prompt, {length}; win rates against {against}"
