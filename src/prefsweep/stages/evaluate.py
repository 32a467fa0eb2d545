"""evaluate: the metrics of a run, from scored answers and from the policies' own probabilities. docs/metrics.md"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefsweep.config.schema import DatasetConfig, ModelConfig
from prefsweep.config.stages import EvaluateConfig
from prefsweep.data.sources import load
from prefsweep.evaluation import divergence, efficiency, judged, overlap, preference, text
from prefsweep.evaluation.values import joined, means
from prefsweep.models.loading import device, load_policy, load_tokenizer
from prefsweep.pipeline.files import read_jsonl, write_json, write_jsonl
from prefsweep.pipeline.stage import Context
from prefsweep.pipeline.store import RECORD
from prefsweep.stages.frontier import BY_PROMPT
from prefsweep.stages.generate import SAMPLES
from prefsweep.stages.judge_accuracy import PAIRS

SIGNATURES = "signatures.json"  # how sacrebleu counted, in its own words; a table with BLEU says it


def run(
    config: EvaluateConfig,
    *,
    model: ModelConfig,
    dataset: DatasetConfig,
    folder: Path,
    context: Context,
    base: Path,
    start: Path,
    result: Path,
    policy: Path | None = None,
    start_policy: Path | None = None,
    base_policy: Path | None = None,
    pairs: Path | None = None,
    limit: Path | None = None,
    validated: Path | None = None,
    **others: Path,
) -> dict[str, Any]:
    """`base`, `start`, `result` are scored samples; the policies are who gave them (None: the model as it is); `pairs`
    are test pairs that the judge scored; `limit` says what was attainable; `validated` is for reports alone. `others`
    (`also_<dataset>`) are what this stage said of other datasets' prompts.

    Each answer is left with its `values`: what is a mean in the metrics is the mean of these.
    """
    folders = {"base": base, "start": start, "result": result}
    rows = {name: list(read_jsonl(folder / SAMPLES)) for name, folder in folders.items()}
    tokenizer = load_tokenizer(model, policy)
    base_model, start_model, final = policies(model, (base_policy, start_policy, policy), device(context.runtime))
    forward = divergence.Forward(tokenizer.pad_token_id, context.runtime.forward_batch, config.precision)
    # KL is about answers drawn at temperature 1 alone
    along = divergence.values(final, base_model, start_model, rows["result"], forward, config.temperature == 1)
    measured = read_measured(pairs)
    good_above = {"harmful": config.harmless_above, "helpful": config.helpful_above}
    said_by_judge = judged.values(rows["result"], rows["base"], measured, good_above)
    values = joined(said_by_judge, text.values(rows["result"]), along)
    write_jsonl(folder / SAMPLES, [row | {"values": said} for row, said in zip(rows["result"], values, strict=True)])
    write_json(folder / SIGNATURES, {"text/bleu": overlap.signature()})
    metrics = means(values)
    metrics |= judged.metrics(rows["result"], rows["start"], rows["base"], metrics, measured)
    metrics |= text.metrics(rows["result"]) | divergence.per_token(along, rows["result"])
    metrics |= text.described("start", rows["start"]) | text.described("base", rows["base"])
    metrics |= divergence.of_start(start_model, base_model, rows["start"], forward, config.temperature == 1)
    if limit is not None:
        axis = f"kl/{config.frontier_of}"
        metrics |= efficiency.metrics(limit / BY_PROMPT, rows["result"], values, axis, config.min_kl)
    metrics |= judged.agreement(list(measured.values())) if measured else {}
    if dataset.pairs == "dataset":
        held_out = load(dataset, "test", tokenizer)[: config.pairs]
        metrics |= preference.metrics(final, start_model, held_out, tokenizer, config.max_length, forward, config.beta)
    context.cost.add(flops=forward.flops)
    return metrics | elsewhere(others)


def policies(model: ModelConfig, places: Sequence[Path | None], where: Any) -> list[Any]:
    """Each loaded once: the base may be the start, and the start the result."""
    loaded = {place: load_policy(model, place).to(where).eval() for place in set(places)}
    return [loaded[place] for place in places]


def elsewhere(others: dict[str, Path]) -> dict[str, float]:
    """`judge/mean@imdb`: the metrics on other prompts."""
    found = {name.removeprefix("also_"): json.loads((place / RECORD).read_text()) for name, place in others.items()}
    return {f"{metric}@{name}": value for name, record in found.items() for metric, value in record["metrics"].items()}


def read_measured(pairs: Path | None) -> judged.Measured:
    return {row["id"]: row for row in read_jsonl(pairs / PAIRS)} if pairs else {}
