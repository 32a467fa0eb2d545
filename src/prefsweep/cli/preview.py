"""prefsweep show: a dataset as the model reads it. What is learned, what is cut, what occurs twice."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
from prefsweep.jobs.console import console, print_line, waiting
from prefsweep.models.loading import load_tokenizer
from prefsweep.models.tokenizers import train_tokenizer

EXAMPLES = 3  # rows that are printed
BARS, WIDTH = 10, 40  # of the histogram: its rows, and the characters of the longest

Row = tuple[Ids, list[Ids]]  # the tokens of a prompt and of its completions


@dataclass
class Statistics:
    """Counts over all rows of a split."""

    cut: Truncation = field(default_factory=Truncation)
    lengths: list[int] = field(default_factory=list)  # of the prompt with its longer completion, before truncation
    prompts: Counter[int] = field(default_factory=Counter)  # by hash: the texts themselves are in memory already
    rows: Counter[int] = field(default_factory=Counter)

    def count(self, example: PreferenceExample, prompt: Ids, completions: Sequence[Ids]) -> None:
        self.lengths.append(len(prompt) + max(map(len, completions), default=0))
        self.prompts[hash(example.prompt)] += 1
        self.rows[hash((example.prompt, example.chosen, example.rejected))] += 1


def show(config: Config, split: str) -> None:
    """Print the first rows of a split as token sequences, and statistics of all of them."""
    outputs = Path(config.runtime.outputs)
    dataset, model = pinned(config.dataset, outputs, True), pinned(config.model, outputs, True)
    config = dataclasses.replace(config, dataset=dataset, model=model)
    with waiting(f"reading {dataset.name}", config.runtime.progress):
        tokenizer = tokenizer_of(config)
        examples = load(dataset, split, tokenizer)
    tally = f" · {examples.tally}" if examples.tally.read else ""
    print_line(f"{dataset.name} {split}: {len(examples):,} rows{tally}")
    print_line(f"as {model.name} reads it, at most {model.max_length} tokens; [[learned]]: the completions")
    sides = [side for side in ("chosen", "rejected") if getattr(examples[0], side) is not None]
    statistics = Statistics()
    for index, (example, row) in enumerate(tokenised(examples, sides, tokenizer, statistics.cut, config)):
        statistics.count(example, *row)
        fitted = statistics.cut.fit(*row, model.max_length, model.prompt_tokens) if sides else row
        if index < EXAMPLES:
            console.print(render(example, tokenizer, sides, row, fitted), soft_wrap=True)
    for line in summary(statistics, model.max_length):
        print_line(line)


def tokenizer_of(config: Config) -> Any:
    """Return the model's tokenizer; of a model from scratch, the one that its base would learn from the dataset."""
    if not config.model.from_scratch:
        return load_tokenizer(config.model, None)
    architecture = config.model.architecture
    texts = pretraining_texts(config.dataset)
    return train_tokenizer(texts, architecture.vocab_size, positions(architecture), architecture.model_type)


def tokenised(
    examples: Sequence[PreferenceExample], sides: Sequence[str], tokenizer: Any, cut: Truncation, config: Config
) -> Iterator[tuple[PreferenceExample, Row]]:
    """Yield each example with its tokens; they are made a batch at a time, under a progress bar if it takes long."""
    disable = not config.runtime.progress or None  # None: unless stderr is a terminal
    starts = range(0, len(examples), BATCH_SIZE)
    for start in tqdm(starts, desc="tokenising", unit="batch", disable=disable, leave=False, delay=1):
        batch = examples[start : start + BATCH_SIZE]
        yield from zip(batch, encode(batch, sides, tokenizer, cut), strict=True)


def render(example: PreferenceExample, tokenizer: Any, sides: Sequence[str], row: Row, fitted: Row) -> Text:
    """Return a row as text: struck out what is cut, in brackets what is learned, so that it reads without colour."""
    prompt, completions = row
    cut = len(prompt) - len(fitted[0])
    text = Text(f"\n{example.id}\n")
    text.append(f"prompt, {len(prompt)} tokens" + (f", the first {cut} cut" if cut else "") + "\n", "italic")
    if cut:
        text.append(f"<cut: {tokenizer.decode(prompt[:cut])}>", "dim strike")
    text.append(tokenizer.decode(prompt[cut:]) + "\n")
    for side, completion, short in zip(sides, completions, fitted[1], strict=True):
        cut = len(completion) - len(short)
        note = f", the last {cut} cut" if cut else ""
        text.append(f"{side}, {len(completion)} tokens{note}\n", "italic")
        text.append(f"[[{tokenizer.decode(short)}]]\n", "green" if side == "chosen" else "yellow")
    return text


def summary(statistics: Statistics, max_length: int) -> Iterator[str]:
    cut = statistics.cut
    prompts, rows = (counts.total() - len(counts) for counts in (statistics.prompts, statistics.rows))
    yield f"\nall {len(statistics.lengths):,} rows, with max_length={max_length}:"
    yield f"prompts cut at their beginning {cut.prompts:,}, by more than three quarters {cut.prompts_mostly:,}"
    yield f"completions cut at their end {cut.completions:,}: they learn no end of text"
    yield f"boundaries that merge {cut.merged:,}: there a completion begins with the last characters of its prompt"
    yield f"duplicates: {prompts:,} prompts and {rows:,} whole rows occur again"
    yield "tokens a row, prompt and longer completion:"
    yield from histogram(statistics.lengths)


def histogram(lengths: Sequence[int]) -> Iterator[str]:
    """Yield bars of equal width in tokens, from the shortest row to the longest."""
    shortest = min(lengths)
    step = (max(lengths) - shortest) // BARS + 1
    counts = Counter((length - shortest) // step for length in lengths)
    for bar in range(max(counts) + 1):
        first, share = shortest + bar * step, counts[bar] / max(counts.values())
        line = f"{first:>7}–{first + step - 1:<7}{counts[bar]:>9,} {'#' * round(WIDTH * share)}"
        yield line.rstrip()
