"""Time and memory of tokenising pairs of hh-rlhf's shape: as Python lists, to disk batch by batch, and read from there.

    python benchmarks/tokenise.py HH [rows]

HH is a folder in the layout of Anthropic/hh-rlhf, a slice is enough: its harmless-base rows are repeated under numbers
of their own. The tokenizer is a byte-level BPE trained on them, up to 50,257 tokens. Every way runs in a process of its
own, from the compressed file on: `lists` tokenises all texts in one call and makes a dataset of its lists, as one does
by hand; `cache` writes rows batch by batch; `again` reads what that wrote. All must give equal rows.
"""

import gzip
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

WAYS = ("lists", "cache", "again")
MAX_LENGTH = 512


def main(source: Path, count: int) -> None:
    from prefsweep.models.tokenizers import train_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        texts = repeat(source, work / "hh/harmless-base", count)
        tokenizer = train_tokenizer(texts, 50_257, 1024)
        tokenizer.save_pretrained(work / "tokenizer")
        print(f"{count:,} rows; {len(tokenizer):,} tokens; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        digests = set()
        for way in WAYS:
            done = subprocess.run([sys.executable, __file__, way, folder], check=True, capture_output=True, text=True)
            measured = json.loads(done.stdout.splitlines()[-1])
            print(way, json.dumps(measured))
            digests.add(measured["rows"])
        assert len(digests) == 1, "the ways do not agree"


def repeat(source: Path, folder: Path, count: int) -> list[str]:
    """Write train and test files of `count` and 100 rows; return the texts that the tokenizer is trained on."""
    folder.mkdir(parents=True)
    with gzip.open(next(source.glob("harmless-base/train.jsonl*"))) as file:
        rows = [json.loads(line) for line in file]
    for name, size in (("train", count), ("test", 100)):
        with gzip.open(folder / f"{name}.jsonl.gz", "wt", compresslevel=1) as file:
            for number, row in enumerate(islice(cycle(rows), size)):
                numbered = {side: text.replace("Human:", f"Human: {name} {number}.", 1) for side, text in row.items()}
                file.write(json.dumps(numbered) + "\n")
    return [row["chosen"] for row in rows]


def measure(way: str, work: Path) -> dict[str, Any]:
    from transformers import AutoTokenizer

    from prefsweep.config.compose import compose, composing
    from prefsweep.data.cache import Cache
    from prefsweep.data.sources import load
    from prefsweep.data.views import pair_rows

    with composing():
        dataset = compose(["dataset=hh-rlhf", f"dataset.path={work / 'hh'}", "model=gpt2"]).dataset
    tokenizer = AutoTokenizer.from_pretrained(work / "tokenizer")
    mb_before, start = peak(), time.monotonic()
    examples = load(dataset, "train")
    read_seconds, mb_with_texts, cpu = time.monotonic() - start, peak(), time.process_time()
    rows = as_lists(examples, tokenizer) if way == "lists" else None
    if rows is None:
        rows, _ = pair_rows(examples, tokenizer, MAX_LENGTH, Cache(work / "cache"))
    seconds, cpu_seconds, mb_peak = time.monotonic() - start, time.process_time() - cpu, peak()
    digest = hashlib.sha256()
    for batch in rows.iter(1000):
        digest.update(json.dumps(batch).encode())
    return {
        "pairs": len(rows),
        "read_seconds": round(read_seconds, 1),
        "tokenise_seconds": round(seconds - read_seconds, 1),
        "tokenise_cpu_seconds": round(cpu_seconds, 1),
        "mb_before": round(mb_before),
        "mb_with_texts": round(mb_with_texts),
        "mb_peak": round(mb_peak),
        "rows": digest.hexdigest()[:16],
    }


def as_lists(examples: Any, tokenizer: Any) -> Any:
    from datasets import Dataset

    from prefsweep.data.truncation import Truncation

    cut, columns = Truncation(), {"prompt_ids": [], "chosen_ids": [], "rejected_ids": []}
    prompts = tokenizer([example.prompt for example in examples])["input_ids"]
    texts = [[example.completion(side) for example in examples] for side in ("chosen", "rejected")]
    chosen, rejected = ([[*ids, tokenizer.eos_token_id] for ids in tokenizer(column)["input_ids"]] for column in texts)
    for whole, *completions in zip(prompts, chosen, rejected, strict=True):
        prompt, completions = cut.fit(whole, completions, MAX_LENGTH)
        for column, ids in zip(columns.values(), (prompt, *completions), strict=True):
            column.append(ids)
    return Dataset.from_dict(columns)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    if sys.argv[1] in WAYS:
        print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]))))
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 160_800)
