"""Records of runs and of their completions, as jobs leave them on disk."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefsweep.evaluation.by_group import FILE, averaged
from prefsweep.pipeline.files import write_jsonl

INPUTS = {  # of the last stage, as `conf/method/_judged.yaml` has them
    **{name: f"judge_completions/{name}" for name in ("base", "start", "result", "opponents")},
    "pairs": "judge_accuracy",
    "frontier": "frontier",
    "validated": "judge_validation",
}
DECODING = {"temperature": 1.0, "completions_per_prompt": 1, "max_new_tokens": 48, "prompts": 500, "split": "test"}
JUDGING = ["evaluate", "generate", "judge_accuracy", "judge_completions"]


def write_run(sweep: Path, method: str, seed: int, metrics: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A run.json as a job leaves it. `changes` are its other fields; dotted ones go into its config."""
    config: dict[str, Any] = {
        "seed": seed,
        "jobs": 1,
        "sweep": sweep.name,
        "grid": [{"seed": [1, 2, 3]}],
        "model": {"name": "gpt2-tiny", "architecture": {"n_embd": 96}},
        "dataset": {"name": "synthetic-reviews", "size": 4500},
        "method": {"name": method, "pipeline": {method: {"policy": "base"}}, "result": method},
        "judge": {"name": "oracle"},
        "stages": {method: {"seed": seed, "beta": 0.5}, "generate": {"prompts": 500, "split": "test", "seed": 0}},
        "runtime": {"threads": seed, "outputs": "outputs"},
        "tracking": {"enabled": seed == 1},
    }
    fields = {key: value for key, value in changes.items() if "." not in key}
    for key, value in changes.items():
        *path, leaf = key.split(".")
        node = config
        for part in path:
            node = node[part]
        if path:
            node[leaf] = value
    name = f"gpt2-tiny_synthetic-reviews_{method}_seed{seed}"
    if any("." in key for key in changes):
        name += f"-{hashlib.sha256(repr(changes).encode()).hexdigest()[:8]}"
    run: dict[str, Any] = {
        "status": "finished",
        "name": name,
        "identity": name,
        "overrides": [],
        "cost": {"seconds": 1.0, "stages": {}},
        "stages": {},
        "error": None,
        "target": "evaluate",
        "inputs": INPUTS,
        "judging": JUDGING,
        "decoding": DECODING | config["stages"].get("generate", {}),
    }
    folder = sweep / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(run | {"metrics": metrics or {}, "config": config} | fields))
    return folder


def write_completions(
    run: Path, values: Mapping[str, Sequence[float]], groups: Sequence[str] | None = None, completions: int = 1
) -> Path:
    """Write the completions of the run's evaluate stage, and their means by group: row i completes prompt
    i // `completions`.

    The run's metrics become their means.
    """
    store, record = run.parents[1] / "outputs", json.loads((run / "run.json").read_text())
    identity = hashlib.sha256(record["identity"].encode()).hexdigest()[:16]
    record["stages"][record["target"]] = identity
    record["config"]["runtime"]["outputs"] = str(store)
    record["metrics"] |= {name: sum(column) / len(column) for name, column in values.items()}
    (run / "run.json").write_text(json.dumps(record))
    folder = store / "stages" / record["target"] / identity
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(len(next(iter(values.values())))):
        prompt = index // completions
        rows.append(
            {
                "id": f"p{prompt}",
                "group": groups[prompt] if groups else f"p{prompt}",
                "sample": index % completions,
                "prompt": f"Is {prompt} <b>odd</b>?",
                "completion": f" Completion {index} of {record['name']}.",
                "ended": True,
                "scores": {"score": next(iter(values.values()))[index]},
                "values": {name: column[index] for name, column in values.items()},
            }
        )
    write_jsonl(folder / "completions.jsonl", rows)
    write_jsonl(folder / FILE, averaged([row["group"] for row in rows], [row["values"] for row in rows]).by_group)
    sections = {"dataset": {"name": record["config"]["dataset"]["name"]}}
    stage = {"commit": "c0ffee" * 6, "sections": sections, "versions": {"python": "3.11"}}
    (folder / "record.json").write_text(json.dumps(stage))
    return folder
