"""generate: completions of one policy for held-out prompts, a row each in `completions.jsonl`; nothing is scored."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from prefsweep.config.schema import DatasetConfig, HHConfig, ModelConfig, RuntimeConfig
from prefsweep.config.stages import GenerateConfig, GeneratePairsConfig
from prefsweep.data.datasets import hh
from prefsweep.data.protocols import harmful_helpful
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.sources import load
from prefsweep.data.truncation import Ids
from prefsweep.data.views import encode_prompts
from prefsweep.models import decoding
from prefsweep.models.batching import batches_by_length
from prefsweep.models.codec import TextCodec, stop_strings
from prefsweep.models.flops import forward_flops
from prefsweep.models.loading import autocast, device, load_policy, load_tokenizer
from prefsweep.pipeline.files import Row, append_jsonl, read_jsonl, recover_jsonl, write_jsonl
from prefsweep.pipeline.stage import Context

SAMPLES = "completions.jsonl"


def run(
    config: GenerateConfig,
    *,
    model: ModelConfig,
    dataset: DatasetConfig,
    folder: Path,
    context: Context,
    policy: Path | None = None,
) -> dict[str, Any]:
    tokenizer = load_tokenizer(model, policy)
    examples, data_metrics = evaluation_examples(config, dataset, tokenizer)
    requests = completion_requests(config, examples, tokenizer)
    similar = context.find_similar("prompts", "completions_per_prompt")
    rows = generate_completions(
        config,
        lambda: load_policy(model, policy).to(device(context.runtime)).eval(),
        tokenizer,
        requests,
        dataset,
        "completions",
        context,
        known=(row for stage in similar for row in read_jsonl(stage / SAMPLES)),
    )
    write_jsonl(folder / SAMPLES, rows)
    ended = sum(row["ended"] for row in rows)
    return {"samples": len(rows), "ended": ended / len(rows), **data_metrics}


def generate_completions(
    config: GenerateConfig | GeneratePairsConfig,
    load_generator: Callable[[], Any],
    tokenizer: Any,
    requests: list[Row],
    dataset: DatasetConfig,
    name: str,
    context: Context,
    known: Iterable[Row] = (),
) -> list[Row]:
    """Return one row a request, in their order.

    Completions that an earlier attempt drew are read from `<name>.jsonl` among the checkpoints. `known` are those that
    a finished stage drew from the same policy in the same way, for fewer or more prompts.
    """
    path = context.checkpoints / f"{name}.jsonl"
    rows = {draw_key(row): row for row in known}
    new = [draw_key(request) for request in requests if draw_key(request) not in rows]
    rows |= {draw_key(row): row for row in recover_jsonl(path)}
    pending = [request for request in requests if draw_key(request) not in rows]
    if new:
        model = load_generator()
        codec = TextCodec(tokenizer, stop_strings(config, dataset))
        for row in sample_completions(config, model, codec, pending, context.runtime):
            append_jsonl(path, [row])
            rows[draw_key(row)] = row
        generated = sum(len(rows[key]["completion_tokens"]) for key in new)
        prompted = sum(len(rows[key]["prompt_tokens"]) for key in new)
        context.cost.add(tokens_generated=generated, flops=forward_flops(model, prompted + generated))
    return [rows[draw_key(request)] for request in requests]


def draw_key(row: Row) -> tuple[str, int]:
    """Return what decides a row's stream of random numbers, and so its completion."""
    return row["id"], row["sample"]


def evaluation_examples(
    config: GenerateConfig, dataset: DatasetConfig, tokenizer: Any
) -> tuple[list[PreferenceExample], dict[str, int]]:
    """Return the examples whose prompts are completed; and the split's counts, unless a protocol chose the prompts."""
    if config.protocol is None:
        examples = load(dataset, config.split, tokenizer)
        return distinct_prompts(examples)[: config.prompts], examples.metrics()
    assert isinstance(dataset, HHConfig)  # checked with the config
    transcripts: dict[str, list[str]] = {}
    for subset, row in hh.rows(dataset, "test"):
        transcripts.setdefault(subset, []).append(row.text("chosen"))
    return harmful_helpful(config.protocol, transcripts["harmless-base"], transcripts["helpful-base"]), {}


def completion_requests(
    config: GenerateConfig | GeneratePairsConfig, examples: Sequence[PreferenceExample], tokenizer: Any
) -> list[Row]:
    """Return one row a completion to draw, in the order of the prompts."""
    prompts = encode_prompts([example.prompt for example in examples], tokenizer)
    return [
        {
            "id": example.id,
            "sample": sample,
            "prompt": example.prompt,
            "group": example.group,
            "kind": example.kind,
            "chosen": example.chosen,
            "ids": ids,
        }
        for example, ids in zip(examples, prompts, strict=True)
        for sample in range(config.completions_per_prompt)
    ]


def distinct_prompts(examples: Sequence[PreferenceExample]) -> list[PreferenceExample]:
    """Return the first example of each prompt, so that no prompt counts twice."""
    first: dict[str, PreferenceExample] = {}
    for example in examples:
        first.setdefault(example.prompt, example)
    return list(first.values())


def sample_completions(
    config: GenerateConfig | GeneratePairsConfig,
    generator: Any,
    codec: TextCodec,
    requests: list[Row],
    runtime: RuntimeConfig,
) -> Iterator[Row]:
    """Yield the rows of `completions.jsonl`, those of the shortest prompts first, as their lengths alone decide."""
    room = generator.config.max_position_embeddings - config.max_new_tokens
    disable = not runtime.progress or None
    bar = tqdm(total=len(requests), desc="generate", unit="completion", disable=disable, leave=False)
    for indices in batches_by_length([len(request["ids"]) for request in requests], runtime.forward_batch):
        batch = [requests[index] for index in indices]
        prompts: list[Ids] = [request["ids"][-room:] for request in batch]
        names = [f"{request['id']}/{request['sample']}" for request in batch]
        numbers = decoding.uniforms(names, config.max_new_tokens, config.seed)
        with autocast(config.precision, generator.device):
            completions = decoding.sample(generator, prompts, numbers, temperature=config.temperature, **codec.sampling)
        texts = codec.completions(prompts, completions)
        for request, prompt, tokens, text in zip(batch, prompts, completions, texts, strict=True):
            yield {
                **{key: request[key] for key in ("id", "group", "kind", "sample", "prompt", "chosen")},
                "completion": text,
                "prompt_tokens": prompt,
                "completion_tokens": tokens,
                "ended": codec.has_ended(tokens),
            }
        bar.update(len(batch))
    bar.close()
