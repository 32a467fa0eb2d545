"""generate_pairs: preference pairs where a dataset has none. A policy completes each prompt K times, the reward ranks.

Of K completions all K(K − 1)/2 pairs are kept but ties and equal completions (Rafailov et al. 2023 make six of four).
The pairs of a prompt depend on one another, so a label is counted for each completion scored. The judge has no part.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from prefsweep.config.schema import DatasetConfig, ModelConfig, ScorerConfig, TrainedConfig
from prefsweep.config.stages import GeneratePairsConfig
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.sources import load
from prefsweep.data.tally import Examples, Tally
from prefsweep.models.loading import device, load_policy, load_tokenizer
from prefsweep.models.scorers import load_scorer
from prefsweep.pipeline.files import Row, read_jsonl, write_jsonl
from prefsweep.pipeline.stage import Context
from prefsweep.stages.generate import completion_requests, generate_completions
from prefsweep.stages.judging import columns_of, measures

COLUMNS = ("id", "group", "prompt", "chosen", "rejected", "kind", "chosen_ended", "rejected_ended")


def run(
    config: GeneratePairsConfig,
    *,
    model: ModelConfig,
    dataset: DatasetConfig,
    reward: ScorerConfig,
    folder: Path,
    context: Context,
    policy: Path | None = None,
    reward_model: Path | None = None,
) -> dict[str, Any]:
    tokenizer = load_tokenizer(model, policy)
    where = device(context.runtime)
    scorer = load_scorer(reward, where, reward_model)
    counts: Counter[str] = Counter()
    metrics: dict[str, Any] = {}
    for split, prompts in (("validation", config.validation_prompts), ("train", config.prompts)):
        examples = load(dataset, split, tokenizer)
        requests = completion_requests(config, examples[:prompts], tokenizer)
        rows = generate_completions(
            config, lambda: load_policy(model, policy).to(where).eval(), tokenizer, requests, dataset, split, context
        )
        scores = measures(scorer, *columns_of(rows), split, context)["score"]
        pairs = ranked_pairs(rows, scores, {example.id: example.group for example in examples[:prompts]}, counts)
        write_jsonl(folder / f"{split}.jsonl", pairs)
        metrics |= {f"{split}/prompts": len(requests) // config.completions_per_prompt, f"{split}/pairs": len(pairs)}
        metrics |= examples.metrics()
    if not isinstance(reward, TrainedConfig):  # the stage that trained a reward model has counted its labels
        context.cost.add(labels=counts["labels"])
    return {**{name: counts[name] for name in ("labels", "ties", "equal_completions")}, **metrics}


def ranked_pairs(
    rows: Sequence[Row], scores: Sequence[float], groups: dict[str, str], counts: Counter[str]
) -> list[Row]:
    """Return every pair of completions of a prompt that the reward tells apart, in the order of the prompts."""
    completions: dict[str, list[tuple[Row, float]]] = {}
    for row, score in zip(rows, scores, strict=True):
        completions.setdefault(row["id"], []).append((row, score))
    pairs = []
    for prompt_id, scored in completions.items():
        counts["labels"] += len(scored)
        for (one, high), (other, low) in combinations(scored, 2):
            if one["completion"] == other["completion"]:
                counts["equal_completions"] += 1
            elif high == low:
                counts["ties"] += 1
            else:
                chosen, rejected = (one, other) if high > low else (other, one)
                pair_id = f"{prompt_id}/{one['sample']}-{other['sample']}"
                texts = one["prompt"], chosen["completion"], rejected["completion"]
                values = pair_id, groups[prompt_id], *texts, one["kind"], chosen["ended"], rejected["ended"]
                pairs.append(dict(zip(COLUMNS, values, strict=True)))
    return pairs


def read_pairs(folder: Path, split: str) -> Examples:
    """Return the pairs of a split that this stage left in its folder."""
    rows = read_jsonl(folder / f"{split}.jsonl")
    return Examples((PreferenceExample(*(row[name] for name in COLUMNS)) for row in rows), Tally(), split)
