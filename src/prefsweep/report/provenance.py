"""A line under every table: where its numbers come from."""

import contextlib
import json
from collections.abc import Mapping, Sequence

from prefsweep.report.columns import number
from prefsweep.report.completions import STAGE, CompletionTable, stage_folder
from prefsweep.report.frame import Run

BLEU = "text/bleu"
SIGNATURES = "signatures.json"  # that evaluate left


def provenance(runs: Sequence[Run], completions: Mapping[str, CompletionTable | None], metrics: Sequence[str]) -> str:
    """Sweep, commit, data, judge with its accuracy, n, seeds and decoding, as far as the runs say them; with BLEU among
    the metrics, how that was counted."""
    left = [found for run in runs if (found := completions.get(run.identity)) is not None]
    parts = [
        named("Sweep", {run.folder.resolve().parent.name for run in runs}),
        named("commit", {found.commit[:12] for found in left if found.commit}),
        named("data", {found.data for found in left if found.data}),
        judge(runs),
        named("n", {f"{found.count} prompts" for found in left}),
        named("seeds", {str(run.seed) for run in runs}),
        decoding(runs),
        *(f"BLEU {said}" for said in (sorted(signatures(runs)) if any(map(is_bleu, metrics)) else ())),
    ]
    return "; ".join(part for part in parts if part) + "."


def is_bleu(metric: str) -> bool:
    return metric.startswith(BLEU)


def signatures(runs: Sequence[Run]) -> set[str]:
    """sacrebleu's, where a run has BLEU; those of a table's runs are one, or it says both."""
    found = set[str]()
    for run in runs:
        folder = stage_folder(run, STAGE) if BLEU in run.metrics else None
        if folder is not None:
            with contextlib.suppress(OSError, ValueError, KeyError):
                found.add(json.loads((folder / SIGNATURES).read_text())[BLEU])
    return found


def named(what: str, values: set[str]) -> str:
    shown = sorted(values, key=lambda value: (len(value), value))
    more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
    return f"{what} {', '.join(shown[:8])}{more}" if shown else ""


def judge(runs: Sequence[Run]) -> str:
    names = sorted({str(name) for run in runs if (name := run.names["judge"])})
    if not names:
        return ""
    said = []
    for metric, words in (
        ("judge/accuracy", "right on {} of test pairs"),
        ("judge/length_accuracy", "length alone {}"),
    ):
        values = [run.metrics[metric] for run in runs if run.has_result and metric in run.metrics]
        said += [words.format(number(values[0], 3))] if values else []
    return f"judge {', '.join(names)}" + (f" ({', '.join(said)})" if said else "")


def decoding(runs: Sequence[Run]) -> str:
    """`decoding at temperature 1, 1 answer a prompt, at most 128 tokens`."""
    said = next((run for run in runs if run.value("stages.generate.temperature") is not None), None)
    if said is None:
        return ""
    temperature, completions = (
        said.value("stages.generate.temperature"),
        said.value("stages.generate.completions_per_prompt") or 1,
    )
    how = "greedy" if temperature == 0 else f"at temperature {temperature:g}"
    cap = said.value("stages.generate.max_new_tokens")
    plural = "" if completions == 1 else "s"
    return f"decoding {how}, {completions} answer{plural} a prompt" + (f", at most {cap} tokens" if cap else "")
