"""Time and memory of tokenising 160,800 pairs of hh-rlhf's shape: mapped from disk, and as Python lists.

    python benchmarks/tokenise.py HH [rows]

HH is a folder in the layout of Anthropic/hh-rlhf, a slice is enough: its harmless-base rows are repeated under numbers
of their own. The tokenizer is a byte-level BPE trained on them, up to 50,257 tokens; text that GPT-2's own has not met
splits finer. Every way runs in a process of its own, from the compressed file on: `lists` gives all texts to the
tokenizer at once and makes a dataset of its lists, as one does by hand; `ours` writes rows batch by batch, which as
many processes make as there are cores; `again` finds them there. All must give equal rows.
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

WAYS = ("lists", "ours", "again")
MAX_LENGTH = 512


def main(source: Path, count: int) -> None:
    from prefsweep.models.tokenizers import train_tokenizer

    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        texts = repeat(source, work / "hh/harmless-base", count)
        tokenizer = train_tokenizer(texts, 50_257, 1024)
        tokenizer.save_pretrained(work / "tokenizer")
        print(f"{count:,} rows; {len(tokenizer):,} tokens known; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        found = {}
        for way in WAYS:
            done = subprocess.run([sys.executable, __file__, way, place], check=True, capture_output=True, text=True)
            found[way] = json.loads(done.stdout.splitlines()[-1])
            print(way, json.dumps(found[way]))
        assert len({told["rows"] for told in found.values()}) == 1, "the ways do not agree"


def repeat(source: Path, folder: Path, count: int) -> list[str]:
    """Writes train and test; the texts that the tokenizer learns from."""
    folder.mkdir(parents=True)
    with gzip.open(next(source.glob("harmless-base/train.jsonl*"))) as file:
        rows = [json.loads(line) for line in file]
    for name, wanted in (("train", count), ("test", 100)):
        with gzip.open(folder / f"{name}.jsonl.gz", "wt", compresslevel=1) as file:
            for number, row in enumerate(islice(cycle(rows), wanted)):
                numbered = {side: text.replace("Human:", f"Human: {name} {number}.", 1) for side, text in row.items()}
                file.write(json.dumps(numbered) + "\n")
    return [row["chosen"] for row in rows]


def one_way(way: str, work: Path) -> dict[str, Any]:
    from datasets import Dataset
    from transformers import AutoTokenizer

    from prefsweep.config.compose import compose, composing
    from prefsweep.data.cache import Cache
    from prefsweep.data.sources import load
    from prefsweep.data.truncation import Truncation
    from prefsweep.data.views import pair_rows

    with composing():
        dataset = compose(["dataset=hh-rlhf", f"dataset.path={work / 'hh'}", "model=gpt2"]).dataset
    tokenizer = AutoTokenizer.from_pretrained(work / "tokenizer")
    before, started = peak(), time.monotonic()
    examples = load(dataset, "train")
    read, held = time.monotonic() - started, peak()
    if way == "lists":
        cut, columns = Truncation(), {"prompt_ids": [], "chosen_ids": [], "rejected_ids": []}
        eos = [tokenizer.eos_token_id]
        prompts = tokenizer([example.prompt for example in examples])["input_ids"]
        chosen, rejected = (
            [row + eos for row in tokenizer([example.completion(side) for example in examples])["input_ids"]]
            for side in ("chosen", "rejected")
        )
        for whole, *completions in zip(prompts, chosen, rejected, strict=True):
            prompt, completions = cut.fit(whole, completions, MAX_LENGTH, tokenizer.eos_token_id)
            for column, ids in zip(columns.values(), (prompt, *completions), strict=True):
                column.append(ids)
        rows = Dataset.from_dict(columns)
    else:
        rows, cut = pair_rows(examples, tokenizer, MAX_LENGTH, Cache(work / "cache", workers=os.cpu_count() or 1))
    seconds, top = time.monotonic() - started, peak()
    digest = hashlib.sha256()
    for batch in rows.iter(1000):
        digest.update(json.dumps(batch).encode())
    return {
        "pairs": len(rows),
        "read_seconds": round(read, 1),
        "tokenise_seconds": round(seconds - read, 1),
        "pairs_per_second": round(len(rows) / seconds),
        "mb_before": round(before),
        "mb_with_texts": round(held),
        "mb_peak": round(top),
        "mb_peak_of_a_worker": round(peak(resource.RUSAGE_CHILDREN)),
        "cut": cut.metrics(),
        "rows": digest.hexdigest()[:16],
    }


def peak(whose: int = resource.RUSAGE_SELF) -> float:
    """Of a forked process too what it shares with its parent is counted."""
    return resource.getrusage(whose).ru_maxrss / 1024


if __name__ == "__main__":
    if sys.argv[1] in WAYS:
        print(json.dumps(one_way(sys.argv[1], Path(sys.argv[2]))))
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 160_800)
