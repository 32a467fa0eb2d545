"""Score many texts with a progress bar; what an earlier attempt scored is not scored again."""

from collections.abc import Sequence

from tqdm.auto import tqdm

from prefsweep.models.scorers import Measures, Scorer, flops_of
from prefsweep.pipeline.files import append_jsonl, recover_jsonl
from prefsweep.pipeline.stage import Context

FLOPS = "flops"  # a text's share of its part, stored with its scores so that a later attempt can count it
PART = 512  # texts scored between two saves: enough that texts of similar length share a batch


def measures(
    scorer: Scorer, prompts: Sequence[str], completions: Sequence[str], name: str, context: Context
) -> Measures:
    """Return `scorer.score(prompts, completions)`, in parts: a text's score does not depend on the other texts."""
    path = context.checkpoints / f"{name}-scores.jsonl"
    rows = recover_jsonl(path)
    bar = tqdm(total=len(completions), desc=f"score {name}", unit="text", disable=not context.runtime.progress or None)
    bar.update(len(rows))
    for first in range(len(rows), len(completions), PART):
        part = slice(first, first + PART)
        before = flops_of(scorer)
        columns = scorer.score(list(prompts[part]), list(completions[part]))
        new = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        flops = (flops_of(scorer) - before) / len(new)
        new = [row | {FLOPS: flops} for row in new]
        append_jsonl(path, new)
        rows += new
        bar.update(len(new))
    bar.close()
    context.cost.add(flops=round(sum(row.pop(FLOPS, 0.0) for row in rows)))
    return {measure: [row[measure] for row in rows] for measure in (rows[0] if rows else ("score",))}
