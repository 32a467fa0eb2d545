"""What truncation takes from the rows of a dataset: the prompt's budget against cutting the prompt alone.

    python benchmarks/truncation.py TOKENIZER DATASET=FOLDER...

`TOKENIZER` is a folder with GPT-2's `vocab.json` and `merges.txt` (or `encoder.json` and `vocab.bpe`), `FOLDER` a
dataset in the hub's layout. For each length, of the training pairs and of the rows of SFT: the share that lost most
of its prompt (three quarters or more), and the share that lost the end of a completion.
"""

import sys
from pathlib import Path
from typing import Any

from transformers import GPT2TokenizerFast

from prefsweep.config.compose import compose, composing
from prefsweep.data.sources import load
from prefsweep.data.truncation import Ids, Truncation, is_mostly_lost
from prefsweep.data.views import encode

LENGTHS = (512, 1024)
VIEWS = {"pairs": ("chosen", "rejected"), "sft": ("chosen",)}


def prompt_first(prompt: Ids, completions: list[Ids], max_length: int) -> tuple[Ids, list[Ids]]:
    """Cut as before the budget: the prompt down to one token, only then the completions."""
    short = [completion[: max_length - 1] for completion in completions]
    return prompt[-(max_length - max(map(len, short))) :], short


def tokenizer_of(folder: Path) -> Any:
    names = [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")]
    vocabulary, merges = next(pair for pair in names if (folder / pair[0]).is_file())
    return GPT2TokenizerFast(str(folder / vocabulary), str(folder / merges))


def main(folder: str, *datasets: str) -> None:
    tokenizer = tokenizer_of(Path(folder))
    print("| dataset | rows | length | rule | lost most of the prompt | lost a completion's end |")
    print("| :-- | :-- | --: | :-- | --: | --: |")
    for dataset, path in (argument.split("=", 1) for argument in datasets):
        with composing():
            config = compose(["model=gpt2", f"dataset={dataset}", f"dataset.path={path}", "dataset.validation=20"])
        examples = list(load(config.dataset, "train", tokenizer))
        for view, sides in VIEWS.items():
            if any(getattr(examples[0], side) is None for side in sides):
                continue
            rows = encode(examples, sides, tokenizer, Truncation())
            for length in LENGTHS:
                for rule, fit in (("prompt first", prompt_first), ("prompt budget", Truncation().fit)):
                    cuts = [fit(prompt, completions, length) for prompt, completions in rows]
                    mostly = sum(is_mostly_lost(row[0], cut[0]) for row, cut in zip(rows, cuts, strict=True))
                    ends = sum(row[1] != cut[1] for row, cut in zip(rows, cuts, strict=True))
                    shares = f"{mostly / len(rows):.1%} | {ends / len(rows):.1%}"
                    print(f"| {dataset} | {view}, {len(rows)} | {length} | {rule} | {shares} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
