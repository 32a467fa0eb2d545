"""sample: answers of one policy to the held-out prompts. A row a sample in `completions.jsonl`; nothing is scored here."""

import json
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
from prefsweep.models.flops import forward_flops
from prefsweep.models.loading import autocast, device, load_policy, load_tokenizer
from prefsweep.pipeline.stage import Context

SAMPLES = "completions.jsonl"
Row = dict[str, Any]


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
    examples, counts = examples_asked(config, dataset, tokenizer)
    asked = questions(config, examples, tokenizer)
    where = device(context.runtime)
    known = [row for place in context.find_similar("prompts", "completions") for row in read_lines(place / SAMPLES)]
    rows = generate_completions(
        config, lambda: load_policy(model, policy).to(where).eval(), tokenizer, asked, "samples", context, known
    )
    write_rows(folder / SAMPLES, rows)
    ended = sum(row["ended"] for row in rows)
    return {"samples": len(rows), "ended": ended / len(rows), **counts}


def generate_completions(
    config: GenerateConfig | GeneratePairsConfig,
    generator: Callable[[], Any],
    tokenizer: Any,
    asked: list[Row],
    name: str,
    context: Context,
    known: Iterable[Row] = (),
) -> list[Row]:
    """A row an answer, in the order of the prompts. What an earlier attempt answered is read from `name`; `known` are
    answers of the same policy, drawn in the same way, when it was asked fewer or more."""
    kept = context.checkpoints / f"{name}.jsonl"
    found = {named(row): row for row in known}
    ours = [named(row) for row in asked if named(row) not in found]
    found |= {named(row): row for row in read_whole_lines(kept)}
    todo = [row for row in asked if named(row) not in found]
    if ours:
        model = generator()
        with kept.open("a") as file:
            for row in completions(config, model, tokenizer, todo, context.runtime):
                file.write(json.dumps(row) + "\n")
                file.flush()
                found[named(row)] = row
        drawn = sum(len(found[name]["completion_tokens"]) for name in ours)
        read = sum(len(found[name]["prompt_tokens"]) for name in ours)
        context.cost.add(tokens_generated=drawn, flops=forward_flops(model, read + drawn))
    return [found[named(row)] for row in sorted(asked, key=lambda row: row["place"])]


def named(row: Row) -> tuple[str, int]:
    """Whose draw it is: the one stream of random numbers, and so the one answer."""
    return row["id"], row["sample"]


def examples_asked(
    config: GenerateConfig, dataset: DatasetConfig, tokenizer: Any
) -> tuple[list[PreferenceExample], dict[str, int]]:
    """And what was kept of the split, where they are its first ones."""
    if config.protocol is None:
        examples = load(dataset, config.split, tokenizer)
        return distinct_prompts(examples)[: config.prompts], examples.metrics()
    assert isinstance(dataset, HHConfig)  # checked with the config
    transcripts: dict[str, list[str]] = {}
    for subset, row in hh.rows(dataset, "test"):
        transcripts.setdefault(subset, []).append(row.text("chosen"))
    return harmful_helpful(config.protocol, transcripts["harmless-base"], transcripts["helpful-base"]), {}


def questions(
    config: GenerateConfig | GeneratePairsConfig, examples: Sequence[PreferenceExample], tokenizer: Any
) -> list[Row]:
    """One a sample, prompts of like length together: little padding, and an order that a resumed stage repeats."""
    encoded = encode_prompts([example.prompt for example in examples], tokenizer)
    rows = [
        {
            "place": place * config.completions_per_prompt + number,
            "id": example.id,
            "sample": number,
            "prompt": example.prompt,
            "group": example.group,
            "kind": example.kind,
            "chosen": example.chosen,
            "ids": ids,
        }
        for place, (example, ids) in enumerate(zip(examples, encoded, strict=True))
        for number in range(config.completions_per_prompt)
    ]
    return sorted(rows, key=lambda row: len(row["ids"]))


def distinct_prompts(examples: Sequence[PreferenceExample]) -> list[PreferenceExample]:
    """The first example of each prompt: answering one twice would count its luck twice."""
    first: dict[str, PreferenceExample] = {}
    for example in examples:
        first.setdefault(example.prompt, example)
    return list(first.values())


def completions(
    config: GenerateConfig | GeneratePairsConfig,
    generator: Any,
    tokenizer: Any,
    asked: list[Row],
    runtime: RuntimeConfig,
) -> Iterator[Row]:
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    room = generator.config.max_position_embeddings - config.max_new_tokens
    bar = tqdm(total=len(asked), desc="sample", unit="completion", disable=not runtime.progress or None, leave=False)
    for first in range(0, len(asked), runtime.forward_batch):
        batch = asked[first : first + runtime.forward_batch]
        prompts: list[Ids] = [row["ids"][-room:] for row in batch]
        numbers = decoding.uniforms(
            [f"{row['id']}/{row['sample']}" for row in batch], config.max_new_tokens, config.seed
        )
        with autocast(config.precision, generator.device):
            drawn = decoding.sample(generator, prompts, numbers, eos, pad, config.temperature)
        for row, prompt, tokens in zip(batch, prompts, drawn, strict=True):
            yield {
                **{key: row[key] for key in ("id", "group", "kind", "sample", "prompt", "chosen")},
                "completion": tokenizer.decode(tokens, skip_special_tokens=True),
                "prompt_tokens": prompt,
                "completion_tokens": tokens,
                "ended": tokens[-1] == eos,
            }
        bar.update(len(batch))
    bar.close()


def read_rows(path: Path) -> list[Row]:
    return list(read_lines(path))


def read_lines(path: Path) -> Iterator[Row]:
    with path.open() as file:
        yield from map(json.loads, file)


def write_rows(path: Path, rows: list[Row]) -> None:
    with path.open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def read_whole_lines(path: Path) -> list[Row]:
    """What an earlier attempt left; a last line that a kill cut off is dropped from the file too."""
    if not path.is_file():
        return []
    whole = path.read_text().rpartition("\n")[0]
    path.write_text(whole + "\n" if whole else "")
    return [json.loads(line) for line in whole.splitlines()]
