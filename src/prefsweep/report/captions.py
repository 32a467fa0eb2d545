"""The sentences under a table: what every ± and mark in it means, and where its numbers come from."""

import json
from collections.abc import Iterable, Sequence
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
    measured = [cell for cell in cells if cell.mean is not None]
    by_prompt = [cell.metric for cell in measured if "prompts" in cell.over]
    headings = {
        estimator: ", ".join(dict.fromkeys(metric.heading for metric in by_prompt if metric.estimator == estimator))
        for estimator in ESTIMATORS
    }
    sources = {cell.published.source for cell in cells if cell.published}
    sentences = {  # each with whether it applies
        ", ".join(f"{name} {first[name]}" for name in NAMES if name not in keys): True,
        **{
            text: any(cell.over == over for cell in measured if not cell.metric.bound)
            for over, text in INTERVALS.items()
        },
        BOUND: any(cell.metric.bound for cell in measured),
        **{text.format(headings[estimator]): bool(headings[estimator]) for estimator, text in ESTIMATORS.items()},
        WILSON: any(cell.is_rate for cell in measured),
        f"{prompts_text(counted)} a run": bool(prompts_text(counted)),
        labels_text(counted): all(cell.metric.name != LABELS for cell in cells),
        MARKS: any(cell.mark is not None for cell in cells),
        f"published: {'; '.join(sorted(sources))}": bool(sources),
        "a diverged run that could be judged stays in the mean": "diverged" in set(counted["status"]),
        warnings_text(counted): True,
        "runs that did not finish have no number here; the last column counts them": len(counted) < len(runs),
    }
    return " ".join(f"{text[0].upper()}{text[1:]}." for text, applies in sentences.items() if text and applies)


def warnings_text(runs: pd.DataFrame) -> str:
    """Return what the stages of these runs warn of, `ppo: KL was never within 20% of …`, each once."""
    return listed("warning:", (warning for warnings in runs["warnings"] for warning in warnings))


def labels_text(runs: pd.DataFrame) -> str:
    """Return `preference labels a run learned from: 0 (base), 1,600 (dpo, ppo)` where methods differ in them."""
    methods: dict[str, list[str]] = {}
    for method, labels in runs.groupby("method")[LABELS] if LABELS in runs else ():
        if labels.notna().any():
            texts = dict.fromkeys(f"{count:,.0f}" for count in (labels.min(), labels.max()))
            methods.setdefault("–".join(texts), []).append(str(method))
    counts = ", ".join(f"{count} ({', '.join(names)})" for count, names in methods.items())
    return f"preference labels a run learned from: {counts}" if len(methods) > 1 else ""


def decoding(runs: pd.DataFrame) -> dict[str, Any]:
    """Return how the judged completions of runs that share a table were generated; empty where none were."""
    return next(filter(None, runs["decoding"]), {})


def prompts_text(runs: pd.DataFrame) -> str:
    """Return `500 test prompts`."""
    settings = decoding(runs)
    return f"{settings['prompts']} {settings['split']} prompts" if settings else ""


def provenance(runs: pd.DataFrame, completions: Completions, metrics: Sequence[str]) -> str:
    """Return sweep, commit, data, judge with its accuracy, n, seeds and decoding; with BLEU, how that was counted."""
    abouts = [about for about in completions.of_runs(runs) if about]
    parts = [
        listed("Sweep", (folder.resolve().parent.name for folder in runs["folder"])),
        listed("commit", (about["commit"][:12] for about in abouts)),
        listed("data", (about["data"] for about in abouts)),
        judge_text(runs),
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
    words = {"judge/accuracy": "right on {} of test pairs", "judge/length_accuracy": "length alone {}"}
    values = {name: runs.loc[runs["has_result"], name].dropna() for name in words if name in runs}
    notes = [words[name].format(number(column.iloc[0], 3)) for name, column in values.items() if len(column)]
    return listed("judge", runs["judge"]) + (f" ({', '.join(notes)})" if notes else "")


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
