"""Many texts through a scorer: a progress bar, and what an earlier attempt scored is not scored again."""

import json
from collections.abc import Sequence

from tqdm.auto import tqdm

from prefsweep.models.scorers import Measures, Scorer, flops_of
from prefsweep.pipeline.stage import Context
from prefsweep.stages.generate import read_whole_lines

FLOPS = "flops"  # of a text's share of its part: kept with its scores, so that a later attempt knows them
AT_ONCE = 512  # texts between two looks at the progress: enough to put those of like length together


def measures(
    scorer: Scorer, prompts: Sequence[str], completions: Sequence[str], name: str, context: Context
) -> Measures:
    """As `scorer.score(prompts, answers)`, in parts: a text's score does not depend on those beside it."""
    kept = context.checkpoints / f"{name}-scores.jsonl"
    rows = read_whole_lines(kept)
    bar = tqdm(total=len(completions), desc=f"score {name}", unit="text", disable=not context.runtime.progress or None)
    bar.update(len(rows))
    with kept.open("a") as file:
        for first in range(len(rows), len(completions), AT_ONCE):
            part = slice(first, first + AT_ONCE)
            before = flops_of(scorer)
            found = scorer.score(list(prompts[part]), list(completions[part]))
            new = [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]
            new = [row | {FLOPS: (flops_of(scorer) - before) / len(new)} for row in new]
            file.writelines(json.dumps(row) + "\n" for row in new)
            file.flush()
            rows += new
            bar.update(len(new))
    bar.close()
    context.cost.add(flops=round(sum(row.pop(FLOPS, 0.0) for row in rows)))
    return {measure: [row[measure] for row in rows] for measure in (rows[0] if rows else ("score",))}
