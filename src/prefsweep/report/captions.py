"""The sentences under a table: what every ± and mark in it means, and where its numbers come from."""

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

from prefsweep.report.cells import Cell
from prefsweep.report.completions import Completions
from prefsweep.report.formatting import number
from prefsweep.report.runs import NAMES, records, stage_file

WILSON = "a rate's interval, in brackets, is Wilson's for as many independent completions as have this variance"
INTERVALS = {  # by what an interval is over
    "seeds and prompts": "mean over seeds ± half-width of its 95% interval over new seeds and new prompts (variance of "
    "seeds, of prompts and of both together, prompts clustered by group, Satterthwaite's degrees of freedom)",
    "prompts": "the 95% interval of a single run is over prompts alone: another seed may differ by more",
    "seeds": "a metric without values of single completions has the mean over seeds ± half-width of its 95% Student-t "
    "interval, which is over seeds alone",
    "": "a value without an interval is a single run",
}
MARKS = (
    "bold: better than every other row of its column; *: worse than its best; both paired over seeds and prompts, "
    "p < .05 after Holm's correction over all pairs of rows in the column"
)


def caption(runs: pd.DataFrame, keys: Sequence[str], cells: Sequence[Cell]) -> str:
    """What is equal in all rows, what every ± and mark means, and which runs the numbers stand for."""
    first, counted = runs.iloc[0], runs[runs["has_result"]]
    parts = [", ".join(f"{name} {first[name]}" for name in NAMES if name not in keys and first[name])]
    kinds = {cell.interval_over for cell in cells if cell.mean is not None}
    parts += [text for kind, text in INTERVALS.items() if kind in kinds]
    parts += [WILSON] * any(cell.is_rate and cell.mean is not None for cell in cells)
    parts += [f"{prompts} a run"] if (prompts := prompts_text(counted)) else []
    parts += [MARKS] * any(cell.is_tested for cell in cells)
    sources = sorted({cell.published.source for cell in cells if cell.published})
    parts += [f"published: {'; '.join(sources)}"] * bool(sources)
    parts += ["a diverged run that could be judged stays in the mean"] * bool((counted["status"] == "diverged").any())
    parts += ["runs that did not finish have no number here; the last column counts them"] * (len(counted) < len(runs))
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in parts if part)


def prompts_text(runs: pd.DataFrame) -> str:
    """`500 test prompts`, or nothing where no run says how many."""
    counts, splits = (decodings(runs, key) for key in ("prompts", "split"))
    split = f"{splits[0]} " if len(splits) == 1 else ""
    return f"{' or '.join(map(str, counts))} {split}prompts" if counts else ""


def decodings(runs: pd.DataFrame, key: str) -> list[Any]:
    """Return the distinct values of a setting with which the judged completions were generated."""
    return sorted({settings[key] for settings in runs["decoding"] if settings.get(key) is not None})


def provenance(runs: pd.DataFrame, completions: Completions, metrics: Sequence[str]) -> str:
    """Sweep, commit, data, judge with its accuracy, n, seeds and decoding, as far as the runs say them; with BLEU among
    the metrics, how that was counted."""
    known = [entry for entry in completions.known(runs) if entry]
    parts = [
        listed("Sweep", {folder.resolve().parent.name for folder in runs["folder"]}),
        listed("commit", {entry["commit"][:12] for entry in known}),
        listed("data", {entry["data"] for entry in known}),
        judge_text(runs),
        listed("n", {f"{entry['prompts']} prompts" for entry in known}),
        listed("seeds", {str(seed) for seed in runs["seed"].dropna()}),
        decoding_text(runs),
        listed("BLEU", bleu_signatures(runs) if any(name.startswith("text/bleu") for name in metrics) else set()),
    ]
    return "; ".join(filter(None, parts)) + "."


def listed(what: str, values: set[str]) -> str:
    texts = sorted(filter(None, values), key=lambda value: (len(value), value))
    more = f" and {len(texts) - 8} more" if len(texts) > 8 else ""
    return f"{what} {', '.join(texts[:8])}{more}" if texts else ""


def bleu_signatures(runs: pd.DataFrame) -> set[str]:
    """How sacrebleu counted, in its own words, in the runs that have BLEU."""
    having = records(runs[runs["text/bleu"].notna()]) if "text/bleu" in runs else []
    paths = [path for run in having if (path := stage_file(run, run["target"], "signatures.json"))]
    return {json.loads(path.read_text())["text/bleu"] for path in paths}


def judge_text(runs: pd.DataFrame) -> str:
    """`judge oracle (right on 0.712 of test pairs, length alone 0.570)`."""
    names = sorted(runs["judge"].dropna().unique())
    words = {"judge/accuracy": "right on {} of test pairs", "judge/length_accuracy": "length alone {}"}
    values = {name: runs.loc[runs["has_result"], name].dropna() for name in words if name in runs}
    notes = [words[name].format(number(known.iloc[0], 3)) for name, known in values.items() if len(known)]
    return f"judge {', '.join(names)}" + (f" ({', '.join(notes)})" if notes else "") if names else ""


def decoding_text(runs: pd.DataFrame) -> str:
    """`decoding at temperature 1, 1 completion a prompt, at most 128 tokens`."""
    keys = ("temperature", "completions_per_prompt", "max_new_tokens")
    temperatures, counts, caps = (decodings(runs, key) for key in keys)
    if not temperatures:
        return ""
    how = "greedy" if temperatures[0] == 0 else f"at temperature {temperatures[0]:g}"
    count, cap = (counts or [1])[0], f", at most {caps[0]} tokens" if caps else ""
    return f"decoding {how}, {count} completion{'s' * (count != 1)} a prompt{cap}"
