"""evaluate: the metrics of a run, from scored completions and the policies' own probabilities. docs/metrics.md"""

import json
from pathlib import Path
from typing import Any

from prefsweep.config.schema import DatasetConfig, ModelConfig
from prefsweep.config.stages import EvaluateConfig
from prefsweep.data.sources import load
from prefsweep.evaluation import by_group, divergence, efficiency, judged, overlap, preference, text
from prefsweep.evaluation.by_group import Measured
from prefsweep.evaluation.values import Values, joined
from prefsweep.models.loading import device, load_policy, load_tokenizer
from prefsweep.pipeline.files import Row, read_jsonl, write_json, write_jsonl
from prefsweep.pipeline.imports import import_object
from prefsweep.pipeline.stage import Context
from prefsweep.pipeline.store import RECORD
from prefsweep.stages.frontier import BY_PROMPT
from prefsweep.stages.generate import SAMPLES
from prefsweep.stages.judging import PAIRS

SIGNATURES = "signatures.json"  # how sacrebleu computed BLEU, for the captions of tables
POLICIES = {"base": "base_policy", "start": "start_policy", "result": "policy"}  # input of samples → of their policy
OTHER = "also_"  # prefix of the inputs that are evaluations on other datasets


def run(
    config: EvaluateConfig,
    *,
    model: ModelConfig,
    dataset: DatasetConfig,
    folder: Path,
    context: Context,
    **inputs: Path,
) -> dict[str, Any]:
    """Return the metrics; write their values by prompt group, and the result's completions with those of each.

    `inputs` are the scored samples `base`, `start` and `result`, and their policies, named in `POLICIES`; an absent one
    is the model's own weights. Optional are `opponents`, draws of the base for win rates, `pairs`, the judged test
    pairs, `frontier`, and `also_<dataset>`, the evaluation on another dataset. `validated` is an input for the reports
    alone.
    """
    tokenizer = load_tokenizer(model, inputs.get("policy"))
    forward = divergence.Forward(tokenizer.pad_token_id, context.runtime.forward_batch, config.precision)
    policies = load_policies(model, inputs, device(context.runtime))
    rows = {name: list(read_jsonl(inputs[name] / SAMPLES)) for name in POLICIES}
    pairs = {row["id"]: row for row in read_jsonl(inputs["pairs"] / PAIRS)} if "pairs" in inputs else {}
    draws = list(read_jsonl(inputs["opponents"] / SAMPLES)) if "opponents" in inputs else []
    opponents = judged.opponents(rows["result"], rows["base"], draws)
    values = completion_values(config, policies, rows, opponents, pairs, forward)
    result = zip(rows["result"], values, strict=True)
    write_jsonl(folder / SAMPLES, (row | {"values": row_values} for row, row_values in result))
    write_json(folder / SIGNATURES, {"text/bleu": overlap.signature()})
    measured = sample_metrics(rows, opponents, pairs, values) | other_datasets(inputs)
    if config.temperature == 1:
        measured |= divergence.start_to_base(policies["start"], policies["base"], rows["start"], forward)
    if "frontier" in inputs:
        axis = "kl/base" if config.frontier_of == "base" else "kl/start"
        measured |= efficiency.metrics(inputs["frontier"] / BY_PROMPT, rows["result"], values, axis, config.min_kl)
    if dataset.pairs == "dataset":
        held_out = load(dataset, "test", tokenizer)[: config.pairs]
        subjects = policies["result"], policies["start"]
        lengths = config.max_length, config.prompt_tokens
        measured |= preference.metrics(*subjects, held_out, tokenizer, *lengths, forward, config.beta)
    context.cost.add(flops=forward.flops)
    write_jsonl(folder / by_group.FILE, measured.by_group)
    return measured.metrics


def load_policies(model: ModelConfig, inputs: dict[str, Path], where: Any) -> dict[str, Any]:
    """Return base, start and result; each policy is loaded once, be it two or three of them."""
    folders = {name: inputs.get(policy) for name, policy in POLICIES.items()}
    policies = {folder: load_policy(model, folder).to(where).eval() for folder in set(folders.values())}
    return {name: policies[folder] for name, folder in folders.items()}


def completion_values(
    config: EvaluateConfig,
    policies: dict[str, Any],
    rows: dict[str, list[Row]],
    opponents: list[list[Row]],
    pairs: judged.Pairs,
    forward: divergence.Forward,
) -> Values:
    """Return the metrics of each of the result's completions."""
    good_above = {"harmful": config.harmless_above, "helpful": config.helpful_above}
    with_kl = config.temperature == 1  # KL is an expectation over completions drawn at temperature 1
    base, start, result = (policies[name] for name in POLICIES)
    custom = [import_object(path) for path in config.metrics]
    return joined(
        judged.values(rows["result"], opponents, pairs, good_above),
        text.values(rows["result"]),
        divergence.values(result, base, start, rows["result"], forward, with_kl),
        *([function(row) for row in rows["result"]] for function in custom),
    )


def sample_metrics(
    rows: dict[str, list[Row]], opponents: list[list[Row]], pairs: judged.Pairs, values: Values
) -> Measured:
    """Measure what follows from the samples and their values alone."""
    result, start, base = rows["result"], rows["start"], rows["base"]
    return (
        by_group.averaged([row["group"] for row in result], values)
        | judged.metrics(result, start, base, opponents, values, pairs)
        | Measured(judged.agreement(list(pairs.values())) if pairs else {})
        | text.metrics(result)
        | text.plain_means("start", start)
        | text.plain_means("base", base)
        | divergence.per_token(values, result)
    )


def other_datasets(inputs: dict[str, Path]) -> Measured:
    """Return the metrics on the prompts of other datasets: `judge/mean@imdb`."""
    measured = Measured()
    for name, folder in inputs.items():
        if name.startswith(OTHER):
            dataset = name.removeprefix(OTHER)
            metrics = json.loads((folder / RECORD).read_text())["metrics"]
            rows = read_jsonl(folder / by_group.FILE)
            measured |= Measured(
                {f"{metric}@{dataset}": value for metric, value in metrics.items()},
                [row | {"metric": f"{row['metric']}@{dataset}"} for row in rows],
            )
    return measured
