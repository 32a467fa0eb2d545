"""prefsweep show: a dataset as the model reads it. What is learned, what is cut, what occurs twice."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text
from tqdm.auto import tqdm

from prefsweep.config.architectures import positions
from prefsweep.config.schema import Config
from prefsweep.data.cache import BATCH_SIZE
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.sources import load, pretraining_texts
from prefsweep.data.truncation import Ids, Truncation
from prefsweep.data.views import encode
from prefsweep.hub import pinned
from prefsweep.jobs.console import waiting
from prefsweep.models.loading import load_tokenizer
from prefsweep.models.tokenizers import train_tokenizer

EXAMPLES = 3
BARS, WIDTH = 10, 40  # of the histogram: rows of it, characters at most


@dataclass
class Seen:
    """What is counted over a whole split."""

    cut: Truncation = field(default_factory=Truncation)
    lengths: list[int] = field(default_factory=list)  # of the prompt with the longer answer, before anything is cut
    prompts: Counter[int] = field(default_factory=Counter)  # hashes: the texts are held once already
    rows: Counter[int] = field(default_factory=Counter)


def show(config: Config, split: str, console: Console) -> None:
    outputs = Path(config.runtime.outputs)
    dataset, model = pinned(config.dataset, outputs, True), pinned(config.model, outputs, True)
    config = dataclasses.replace(config, dataset=dataset, model=model)
    progress = config.runtime.progress
    with waiting(f"reading {dataset.name}", progress):
        tokenizer = tokenizer_of(config)
        examples = load(dataset, split, tokenizer)
    sides = [side for side in ("chosen", "rejected") if getattr(examples[0], side) is not None]
    eos = tokenizer.eos_token_id
    said = f" · {examples.tally}" if examples.tally.read else ""
    say(console, f"{dataset.name} {split}: {len(examples):,} rows{said}")
    say(console, f"as {config.model.name} reads it; [[learned]]: the completions")
    seen = Seen()
    for example, prompt, completions in encoded(examples, sides, tokenizer, seen.cut, progress):
        seen.lengths.append(len(prompt) + max(map(len, completions), default=0))
        seen.prompts[hash(example.prompt)] += 1
        seen.rows[hash((example.prompt, example.chosen, example.rejected))] += 1
        kept, short = prompt, list[Ids]()
        if completions:
            kept, short = seen.cut.fit(prompt, completions, config.model.max_length, eos)
        if len(seen.lengths) <= EXAMPLES:
            console.print(drawn(example, tokenizer, sides, (prompt, completions), (kept, short)), soft_wrap=True)
    for line in summary(seen, config.model.max_length):
        say(console, line)


def tokenizer_of(config: Config) -> Any:
    """The model's; of a model from nothing, the one that its base would learn from the dataset."""
    if not config.model.from_scratch:
        return load_tokenizer(config.model, None)
    shape = config.model.architecture
    texts = pretraining_texts(config.dataset)
    return train_tokenizer(texts, shape.vocab_size, positions(shape), shape.model_type)


def encoded(
    examples: Sequence[PreferenceExample], sides: Sequence[str], tokenizer: Any, cut: Truncation, progress: bool
) -> Iterator[tuple[PreferenceExample, Ids, list[Ids]]]:
    """Row by row, a batch at a time."""
    off = not progress or None  # None: where nobody watches
    bar = tqdm(total=len(examples), desc="tokenising", unit="row", disable=off, leave=False, delay=1)  # not for a few
    for first in range(0, len(examples), BATCH_SIZE):
        part = examples[first : first + BATCH_SIZE]
        for example, (prompt, completions) in zip(part, encode(part, sides, tokenizer, cut), strict=True):
            yield example, prompt, completions
        bar.update(len(part))
    bar.close()


def drawn(
    example: PreferenceExample,
    tokenizer: Any,
    sides: Sequence[str],
    whole: tuple[Ids, list[Ids]],
    kept: tuple[Ids, list[Ids]],
) -> Text:
    """One row: dim is what is cut, in brackets and green what is learned; so it reads without colour too."""
    prompt, completions = whole
    cut = len(prompt) - len(kept[0])
    text = Text(f"\n{example.id}\n", style="")
    text.append(f"prompt, {len(prompt)} tokens" + (f", the first {cut} cut" if cut else "") + "\n", "italic")
    if cut:
        text.append(f"<cut: {tokenizer.decode(prompt[:cut])}>", "dim strike")
    text.append(tokenizer.decode(prompt[cut:]) + "\n")
    for side, completion, short in zip(sides, completions, kept[1], strict=True):
        lost = len(completion) - len(short)
        told = f", the last {lost} before its end cut" if lost else ""
        text.append(f"{side}, {len(completion)} tokens{told}\n", "italic")
        text.append(f"[[{tokenizer.decode(short)}]]\n", "green" if side == "chosen" else "yellow")
    return text


def summary(seen: Seen, max_length: int) -> Iterator[str]:
    cut, count = seen.cut, len(seen.lengths)
    yield f"\nover all {count:,} rows, with max_length={max_length}:"
    yield f"prompts cut at their beginning {cut.prompts:,}, answers cut before their end {cut.completions:,}"
    yield f"boundaries that merge {cut.merged:,}: there, answers begin with the last characters of their prompt"
    again = [sum(counts.values()) - len(counts) for counts in (seen.prompts, seen.rows)]
    yield f"duplicates: {again[0]:,} prompts occur again, {again[1]:,} whole rows do"
    yield "tokens a row, prompt and longer answer:"
    yield from histogram(seen.lengths)


def histogram(lengths: Sequence[int]) -> Iterator[str]:
    """Bars of equal width in tokens, from the shortest row to the longest."""
    low = min(lengths)
    step = (max(lengths) - low) // BARS + 1
    counts = Counter((length - low) // step for length in lengths)
    for bar in range(max(counts) + 1):
        first, share = low + bar * step, counts[bar] / max(counts.values())
        line = f"{first:>7}–{first + step - 1:<7}{counts[bar]:>9,} {'#' * round(WIDTH * share)}"
        yield line.rstrip()


def say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, markup=False)
