"""pairs: preference pairs where the data has none. A policy answers each prompt K times, the reward ranks the answers.

Of K answers all K(K − 1)/2 pairs are kept but ties and equal answers (Rafailov et al. 2023 make six of four). They
depend on one another, so what is counted as labels is the answers that were scored. The judge has no part in it.
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
from prefsweep.pipeline.stage import Context
from prefsweep.stages.generate import Row, generate_completions, questions, read_rows, write_rows
from prefsweep.stages.scoring import measures

COLUMNS = ("id", "group", "prompt", "chosen", "rejected")


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
    told: dict[str, Any] = {}
    for split, wanted in (("validation", config.validation_prompts), ("train", config.prompts)):
        examples = load(dataset, split, tokenizer)
        asked = questions(config, examples[:wanted], tokenizer)
        rows = generate_completions(
            config, lambda: load_policy(model, policy).to(where).eval(), tokenizer, asked, split, context
        )
        texts = [row["prompt"] for row in rows], [row["completion"] for row in rows]
        scored = measures(scorer, *texts, split, context)["score"]
        pairs = ranked(rows, scored, {example.id: example.group for example in examples[:wanted]}, counts)
        write_rows(folder / f"{split}.jsonl", pairs)
        told |= {f"{split}/prompts": len(asked) // config.completions_per_prompt, f"{split}/pairs": len(pairs)}
        told |= examples.metrics()
    is_bought = not isinstance(reward, TrainedConfig)  # else the stage that trained it has counted its labels
    context.cost.add(labels=counts["labels"] if is_bought else 0)
    return {"labels": counts["labels"], "ties": counts["ties"], "equal_completions": counts["equal answers"], **told}


def ranked(rows: Sequence[Row], scored: Sequence[float], groups: dict[str, str], counts: Counter[str]) -> list[Row]:
    """Every pair of answers to a prompt that the reward tells apart, in the order of the prompts."""
    completions: dict[str, list[tuple[Row, float]]] = {}
    for row, score in zip(rows, scored, strict=True):
        completions.setdefault(row["id"], []).append((row, score))
    pairs = []
    for name, given in completions.items():
        counts["labels"] += len(given)
        for (one, high), (other, low) in combinations(given, 2):
            if one["completion"] == other["completion"]:
                counts["equal answers"] += 1
            elif high == low:
                counts["ties"] += 1
            else:
                better, worse = (one, other) if high > low else (other, one)
                place = f"{name}/{one['sample']}-{other['sample']}"
                values = (place, groups[name], one["prompt"], better["completion"], worse["completion"])
                pairs.append(dict(zip(COLUMNS, values, strict=True)))
    return pairs


def load_pairs(dataset: DatasetConfig, split: str, tokenizer: Any, pairs: Path | None) -> Examples:
    """The pairs of a split: the dataset's own, or those that this stage left in `pairs`."""
    if pairs is None:
        return load(dataset, split, tokenizer)
    rows = read_rows(pairs / f"{split}.jsonl")
    return Examples((PreferenceExample(*(row[name] for name in COLUMNS)) for row in rows), Tally(), split)
