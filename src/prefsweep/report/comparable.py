"""Which runs may share a table: those judged by one judge, on the same prompts, decoded in one way."""

from collections.abc import Mapping, Sequence
from typing import Any

from prefsweep.report.columns import key_heading, value_text
from prefsweep.report.completions import CompletionTable
from prefsweep.report.frame import Run

SECTIONS = (
    "judge.",
    "stages.generate.",
    "stages.judge_completions.",
    "stages.evaluate.",
    "stages.judge_accuracy.",
    "stages.judge_model.",
)
NO_MATTER = ("._target_", ".reads", ".path", "evaluate.frontier")  # plumbing; a path names no content; more is asked
PROMPTS = "prompts"
JUDGE = (
    "judge_accuracy"  # the stage that asks the judge about test pairs: one identity, one judge, wherever its files lie
)


def comparison(run: Run) -> dict[str, Any]:
    """What must be equal, as far as the config says it."""
    names = {"dataset": run.names["dataset"], "judge": run.names["judge"]}
    settings = {key: value for key, value in run.settings.items() if key.startswith(SECTIONS)}
    template = {key: value for key, value in run.settings.items() if key in ("dataset.template", "model.template")}
    names |= {"the judge's own weights": run.stages[JUDGE]} if JUDGE in run.stages else {}
    return names | template | {key: value for key, value in settings.items() if not key.endswith(NO_MATTER)}


def comparable_sets(runs: Sequence[Run], completions: Mapping[str, CompletionTable | None]) -> list[list[Run]]:
    """The runs in sets that may each make a table, in the order first seen. A run that says nothing of itself (killed
    before it wrote its config) or that left no answers joins the first set it does not contradict."""
    sets: list[tuple[dict[str, Any], list[Run]]] = []
    for run in runs:
        found = comparison(run) if run.config else {}
        if (left := completions.get(run.identity)) is not None:
            found[PROMPTS] = left.prompts
        for known, members in sets:
            if agree(known, found):
                members.append(run)
                known.update(found)
                break
        else:
            sets.append((found, [run]))
    return [members for _, members in sets]


def agree(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one[key] == other[key] for key in one.keys() & other.keys())


def reason(sets: Sequence[Sequence[Run]], completions: Mapping[str, CompletionTable | None]) -> str:
    """`stages.generate.temperature (0.7, 1)`: what the sets differ in, the plainest first."""
    found: dict[str, dict[str, None]] = {}
    for members in sets:
        said = comparison(members[0])
        for key, value in said.items():
            found.setdefault(key, {})[value_text(value)] = None
    differing = [f"{key_heading(key)} ({', '.join(values)})" for key, values in found.items() if len(values) > 1]
    return ", ".join(differing[:3]) or "the prompts that were answered"
