"""Time of the table of 1,000 runs, each with 500 prompts × 4 completions and the config of a real one.

    python benchmarks/table.py [runs]

The runs are recorded, not trained: 200 settings of DPO's beta by five seeds, a run.json as a job writes it, and the
completions of its evaluate stage with their metrics by prompt group. The first table reads all of those, the second
what the first kept in the parquet.
"""

import dataclasses
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from prefsweep.config.compose import compose, composing
from prefsweep.evaluation.by_group import FILE, averaged
from prefsweep.pipeline.files import write_jsonl

SEEDS, PROMPTS, COMPLETIONS = 5, 500, 4
NAMES = ("judge/mean", "judge/win_rate", "kl/base", "kl/start", "text/length", "text/ended")
OTHERS = [f"-{number}" for number in range(7)]  # a run has some fifty metrics by prompt group, a table shows a few
COMMAND = [sys.executable, "-m", "prefsweep", "table", "sweep", "--format", "md", "--out", "out"]


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder, composing():
        work, config = Path(folder), dataclasses.asdict(compose(["model=gpt2", "dataset=hh-rlhf", "method=dpo"]))
        config["stages"] = {
            name: config["stages"][name]
            for name in ("reference_logps", "dpo", "generate", "judge_completions", "evaluate")
        }
        for number in range(count):
            record(work, config, number)
        print(f"{count} runs; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        for way in ("first", "second"):
            started = time.monotonic()
            done = subprocess.run(COMMAND, cwd=work, capture_output=True, text=True)
            print(f"{way}: {time.monotonic() - started:.2f} s")
            assert done.returncode == 0, done.stderr


def record(work: Path, config: dict[str, Any], number: int) -> None:
    beta, seed = number // SEEDS / 100 + 0.01, number % SEEDS + 1
    rng, identity = random.Random(number), f"{number:016x}"
    config = {**config, "seed": seed, "stages": {**config["stages"], "dpo": {**config["stages"]["dpo"], "beta": beta}}}
    folder = work / "outputs/stages/evaluate" / identity
    folder.mkdir(parents=True)
    sums, columns = dict.fromkeys(NAMES, 0.0), []
    with (folder / "completions.jsonl").open("w") as file:
        for index in range(PROMPTS * COMPLETIONS):
            values = {name: rng.choice((0.0, 1.0)) if "rate" in name else rng.gauss(beta, 1) for name in NAMES}
            columns.append(values)
            sums = {name: total + values[name] for name, total in sums.items()}
            prompt = index // COMPLETIONS
            row = {
                "id": f"p{prompt}",
                "group": f"p{prompt}",
                "sample": index % COMPLETIONS,
                "prompt": f"Prompt {prompt}?",
            }
            file.write(json.dumps({**row, "completion": " So it is." * 20, "values": values}) + "\n")
    rows = averaged([f"p{index // COMPLETIONS}" for index in range(PROMPTS * COMPLETIONS)], columns).by_group
    write_jsonl(folder / FILE, (row | {"metric": row["metric"] + more} for more in ("", *OTHERS) for row in rows))
    (folder / "record.json").write_text(json.dumps({"commit": "0" * 40, "sections": {"dataset": config["dataset"]}}))
    run = {
        "status": "finished",
        "name": f"gpt2_hh-rlhf_dpo_seed{seed}-{identity[-8:]}",
        "identity": identity,
        "overrides": [],
        "metrics": {name: total / (PROMPTS * COMPLETIONS) for name, total in sums.items()},
        "cost": {"seconds": 1.0, "stages": {}},
        "stages": {"evaluate": identity},
        "target": "evaluate",
        "inputs": {},
        "decoding": config["stages"]["generate"],
        "judging": ["evaluate", "generate", "judge_completions"],
        "config": config,
        "error": None,
    }
    target = work / "sweep" / str(run["name"])
    target.mkdir(parents=True)
    (target / "run.json").write_text(json.dumps(run))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
