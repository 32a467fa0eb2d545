"""evaluate: the metrics of a run, from scored answers and from the policies' own probabilities. docs/metrics.md"""

from pathlib import Path
from typing import Any

from prefsweep.config import DatasetConfig, EvaluateConfig, ModelConfig
from prefsweep.data.sources import load
from prefsweep.evaluation import divergence, judged, preference, text
from prefsweep.models.loading import device, load_policy, load_tokenizer
from prefsweep.pipeline.stage import Context
from prefsweep.stages.sample import SAMPLES, read_rows, write_rows


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
) -> dict[str, Any]:
    """`base`, `start`, `result` are scored samples; the policies are who gave them (None: the model as it is)."""
    rows = {
        "base": read_rows(base / SAMPLES),
        "start": read_rows(start / SAMPLES),
        "result": read_rows(result / SAMPLES),
    }
    write_rows(folder / SAMPLES, rows["result"])
    metrics = judged.metrics(rows["result"], rows["start"], rows["base"]) | text.metrics(rows["result"])
    where = device(context.runtime)
    tokenizer = load_tokenizer(model, policy)
    places = {"base": base_policy, "start": start_policy, "result": policy}
    loaded = {place: load_policy(model, place).to(where).eval() for place in set(places.values())}
    base_model, start_model, final = (loaded[places[name]] for name in ("base", "start", "result"))
    forward = divergence.Forward(tokenizer.pad_token_id, context.runtime.forward_batch, config.precision)
    if config.temperature == 1:  # else the answers are of another distribution than the one KL is about
        metrics |= divergence.metrics(final, base_model, start_model, rows["result"], forward)
    if dataset.pairs == "sampled":
        return metrics
    pairs = load(dataset, "test", tokenizer)[: config.pairs]
    metrics |= preference.metrics(final, start_model, pairs, tokenizer, config.max_length, forward)
    return metrics
