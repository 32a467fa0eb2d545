"""Ours and a peer in turn, each in a process of its own, several times; medians, ratios, checks; a JSON a case.

A case is one model, rows and precision. Its file in `benchmarks/results/DEVICE/` holds every run's numbers beside the
hardware, the date, the command and a hash of the code, by which a case that was measured on this code is skipped.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import world

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
CONF = str(ROOT / "benchmarks/conf")  # methods that train and judge nothing
OURS_PATH = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
PRECISIONS = ("fp32", "bf16", "tf32")
# With --keep-memory on both sides: glibc keeps what is freed, which ours asks it for by itself (`pipeline/memory.py`).
MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "500000000"}
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "WANDB_MODE": "offline",
}
Run = dict[str, Any]

# ------------------------------------------------------------------------------------------------------- arithmetic


def median_ratio(ours: Sequence[float], peer: Sequence[float]) -> dict[str, float]:
    """Return both medians and how many times the peer's ours goes into it: above 1, ours is faster or smaller."""
    medians = {"ours": statistics.median(ours)} | ({"peer": statistics.median(peer)} if peer else {})
    return medians | ({"ratio": medians["peer"] / medians["ours"]} if peer and medians["ours"] else {})


def mean_steps(runs: Sequence[Run], iterations: int | None = None) -> list[float]:
    """Return each run's seconds a step, or one of so many equal iterations: the mean, since no two are equally long.

    The first has no start; what it pays once, such as filling caches, is warm-up and in no figure.
    """
    means = []
    for run in runs:
        count = iterations or len(run["steps"])
        ends = run["steps"][len(run["steps"]) // count - 1 :]
        means.append((ends[-1] - ends[0]) / (count - 1))
    return means


def relative_difference(ours: Sequence[float], peer: Sequence[float]) -> float:
    """Return the largest |ours − peer| / |peer| over two curves, which must be equally long."""
    if len(ours) != len(peer):
        return float("inf")
    return max((abs(a - b) / abs(b) for a, b in zip(ours, peer, strict=True)), default=0.0)


def reward_at(curve: Sequence[tuple[float, float]], kl: float) -> float:
    """Return the reward of a training where it first reached this KL, between two of its points (KL, reward)."""
    for (low, before), (high, after) in pairwise(curve):
        if low <= kl <= high and low < high:
            return before + (after - before) * (kl - low) / (high - low)
    return min(curve, key=lambda point: abs(point[0] - kl))[1]


# --------------------------------------------------------------------------------------------------------- hardware


def hardware(device: str) -> dict[str, Any]:
    """Return what a figure depends on: the processor and its matrix instructions, the GPU, the libraries."""
    import torch

    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    names, flags = re.search(r"model name\s*: (.*)", info), re.search(r"flags\s*: (.*)", info)
    known = set(flags[1].split() if flags else [])
    return {
        "processor": names[1] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        **{flag: flag in known for flag in ("avx512f", "avx512_bf16", "amx_bf16")},
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def code_hash() -> str:
    """Return a hash of what a measurement is of: the package and its configs, committed or not."""
    digest = hashlib.sha256()
    for path in sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "conf").rglob("*.yaml")]):
        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def commit() -> str | None:
    if shutil.which("git") is None:
        return None
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or None


# -------------------------------------------------------------------------------------------------------- processes


def command_line(script: str, argv: list[str]) -> str:
    """Return the command as anybody can give it: without where this machine has its environments and folders."""
    words, left = ["python", f"benchmarks/{script}.py"], iter(argv)
    for word in left:
        if word in ("--peer", "--peer-ppo", "--peer-path", "--out", "--work", "--tokenizer"):
            next(left)
            words += [word, "FOLDER"] if word == "--tokenizer" else []
        else:
            words.append(word)
    return " ".join(words)


def python_of(environment: str) -> list[str]:
    """Return the command of a peer's Python: that of `.venv-peers` or the like, or a file that is given."""
    path = Path(environment)
    return [str(path / "bin/python" if path.is_dir() else shutil.which(environment) or path)]


def measure(command: list[str], env: dict[str, str], folder: Path, marks: Path | None = None) -> Run:
    """Run a process to its end; return its clock and CPU time beside its own marks."""
    log, started = folder / f"log-{len(list(folder.glob('log-*')))}.txt", time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(command, env=env, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {process.returncode}\n" + log.read_text()[-3000:])
    spent = {"wall_seconds": time.monotonic() - started, "cpu_seconds": usage.ru_utime + usage.ru_stime}
    return spent | (json.loads(marks.read_text()) if marks else {})


@dataclass
class Bench:
    """The arguments of a script, and its two sides."""

    script: str
    options: argparse.Namespace
    summaries: list[dict[str, Any]] = field(default_factory=list)

    @property
    def device(self) -> str:
        return str(self.options.device)

    def environment(self, precision: str, pythonpath: str | None) -> dict[str, str]:
        """Return the environment of one side; torch itself makes fp32 products TF32 where the case asks for it."""
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | OFFLINE
        env |= MEMORY if self.options.keep_memory else {}
        env |= {"CUDA_VISIBLE_DEVICES": ""} if self.device == "cpu" else {}
        env |= {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"} if precision == "tf32" else {}
        return env | ({"PYTHONPATH": pythonpath} if pythonpath else {})

    def ours(self, folder: Path, precision: str, overrides: Sequence[str]) -> Run:
        """Run one job of ours in `folder`, where its stages are stored."""
        marks = folder / f"ours-{time.monotonic_ns()}.json"
        shared = ["tracking=off", f"runtime.device={self.device}", "runtime.progress=false", "runtime.log_every=1"]
        command = [
            sys.executable,
            str(ROOT / "benchmarks/marks.py"),
            str(marks),
            "prefsweep",
            "-cd",
            CONF,
            *overrides,
            *shared,
        ]
        env = self.environment(precision, OURS_PATH)
        return measure([*command, "runtime.resume_checkpoint_every=1000000"], env, folder, marks)

    def peer(self, folder: Path, precision: str, spec: Run, environment: str | None = None) -> Run:
        """Run one training of the peer in `folder`; without its environment there is nothing to compare with."""
        marks, path = folder / f"peer-{time.monotonic_ns()}.json", folder / "spec.json"
        path.write_text(json.dumps(spec | {"precision": precision, "device": self.device, "folder": str(folder)}))
        command = [*python_of(environment or self.options.peer), str(ROOT / "benchmarks/marks.py"), str(marks)]
        caches = {
            "HF_HOME": str(folder / "hf"),
            "HF_DATASETS_CACHE": str(folder / "hf/datasets"),
        }  # nothing precomputed
        env = self.environment(precision, self.options.peer_path) | caches
        return measure([*command, "trl", str(path)], env, folder, marks)

    def has_peer(self, environment: str | None = None) -> bool:
        return not self.options.no_peer and Path(python_of(environment or self.options.peer)[0]).exists()

    # --------------------------------------------------------------------------------------------------- cases

    def cases(self) -> Iterator[tuple[str, str, str]]:
        return product(self.options.model, self.options.rows, self.options.precision)

    def world(self, model: str, shape: str, count: int, held_out: int = 1) -> "World":
        return World.make(self, model, shape, count, held_out)

    def case(self, name: str, measure_case: Callable[[Path], dict[str, Any]], **setting: Any) -> None:
        """Measure one case and write its file, unless it has been measured on this code on this kind of device."""
        out = self.options.out / self.device / f"{self.script}-{name}.json"
        if out.is_file() and not (self.options.again or self.options.quick):
            earlier = json.loads(out.read_text())
            if earlier["code"] == code_hash():
                print(f"{self.script} {name}: measured on {earlier['date']}; --again measures it again")
                return
        with tempfile.TemporaryDirectory(dir=self.options.work) as folder:
            result = {
                "script": self.script,
                "name": name,
                "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
                "command": command_line(self.script, sys.argv[1:]),
                "commit": commit(),
                "code": code_hash(),
                "load": os.getloadavg()[0],
                "hardware": hardware(self.device),
                "setting": setting
                | {"quick": self.options.quick, "repeat": self.options.repeat, "keep_memory": self.options.keep_memory},
                **measure_case(Path(folder)),
            }
        self.summaries.append(result)
        if not self.options.quick or self.options.out != RESULTS:  # what --quick measures means nothing
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(result, indent=1) + "\n")
        print(f"{self.script} {name}: {line_of(result)}", flush=True)

    def in_turn(
        self, folder: Path, ours: Callable[[Path], Run] | None, peer: Callable[[Path], Run] | None
    ) -> tuple[list[Run], list[Run]]:
        """Run both sides alternately, each time from nothing, so that a busy minute of the machine meets both."""
        runs: tuple[list[Run], list[Run]] = ([], [])
        for turn in range(self.options.repeat):
            for side, run, results in (("ours", ours, runs[0]), ("peer", peer, runs[1])):
                if run is not None:
                    work = folder / f"{side}-{turn}"
                    work.mkdir()
                    results.append(run(work))
                    shutil.rmtree(work)
        return runs


def line_of(result: dict[str, Any]) -> str:
    """Return a case's summary as one line."""

    def number(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    parts = []
    for name, value in (result["summary"] | result.get("checks", {})).items():
        inner = (
            " ".join(f"{key} {number(part)}" for key, part in value.items())
            if isinstance(value, dict)
            else number(value)
        )
        parts.append(f"{name}: {inner}")
    return "; ".join(parts)


def memory(ours: list[Run], peer: list[Run], device: str) -> dict[str, Any]:
    """Return the peak memory of both sides in MB: of the GPU where there is one, and of the process."""
    names = {"peak_mb": "peak_bytes"} | ({"gpu_peak_mb": "gpu_peak_bytes"} if device == "cuda" else {})
    return {
        name: median_ratio([run[key] / 2**20 for run in ours], [run[key] / 2**20 for run in peer])
        for name, key in names.items()
    }


@dataclass
class World:
    """A model, a scorer and a file of rows, which all cases of a script share, and the rows of train and test alone."""

    model: str
    policy: Path
    scorer: Path
    rows: Path
    train: Path
    test: Path
    overrides: list[str]

    @classmethod
    def make(cls, bench: Bench, model: str, shape: str, count: int, held_out: int) -> "World":
        from prefsweep.config.compose import compose, composing
        from prefsweep.data.sources import load

        folder = Path(bench.options.work)
        tokenizer = world.make_tokenizer(bench.options.tokenizer)
        if not (policy := folder / model).is_dir():
            world.make_model(model, tokenizer, policy)
        if not (scorer := folder / "scorer").is_dir():
            world.make_scorer(tokenizer, scorer)
        name = f"{shape}-{count}-{held_out}"
        rows = world.write_rows(folder / f"{name}.jsonl", world.pairs(shape, count + 2 * held_out))
        overrides = [
            f"model={'opt-350m' if model == 'opt-350m' else 'gpt2'}", f"model.path={policy}", "dataset=local",
            f"dataset.path={rows}", f"dataset.validation={held_out}", f"dataset.test={held_out}",
            "dataset.shuffle=false",
        ]  # fmt: skip
        with composing():
            dataset = compose(overrides).dataset
        train, test = (
            world.write_rows(
                folder / f"{name}-{split}.jsonl",
                (
                    {"prompt": row.prompt, "chosen": row.chosen, "rejected": row.rejected}
                    for row in load(dataset, split)
                ),
            )
            for split in ("train", "test")
        )
        return cls(model, policy, scorer, rows, train, test, overrides)


# -------------------------------------------------------------------------------------------------------- arguments


def bench(
    script: str,
    text: str,
    models: Sequence[str],
    shapes: Sequence[str],
    argv: Sequence[str] | None = None,
    methods: Sequence[str] = (),
) -> Bench:
    """Read the arguments that all scripts share, with this script's own models, shapes of rows and methods."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=list(models), choices=list(world.MODELS))
    parser.add_argument("--rows", nargs="+", default=list(shapes), choices=list(world.SHAPES))
    parser.add_argument("--method", nargs="+", default=list(methods), choices=list(methods))
    parser.add_argument(
        "--precision", nargs="+", choices=PRECISIONS, help="default: fp32 and bf16; on a GPU tf32 and bf16"
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--repeat", type=int, default=3, help="processes of each side")
    parser.add_argument("--steps", type=int, help="optimiser steps of a run; default: the script's own")
    parser.add_argument("--batch", type=int, help="rows of a step; default: the script's own")
    parser.add_argument("--quick", action="store_true", help="seconds, with a small model; the numbers mean nothing")
    parser.add_argument("--again", action="store_true", help="also what has been measured on this code")
    parser.add_argument("--tokenizer", type=Path, help="a folder with GPT-2's vocab.json and merges.txt")
    parser.add_argument("--peer", default=str(ROOT / ".venv-peers"), help="the peer's environment, or its Python")
    parser.add_argument("--peer-ppo", default=str(ROOT / ".venv-peers-ppo"), help="the same, for PPO")
    parser.add_argument("--peer-path", help="PYTHONPATH of the peer")
    parser.add_argument("--no-peer", action="store_true", help="ours alone")
    parser.add_argument("--keep-memory", action="store_true", help="both sides under an allocator that keeps memory")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, help="a folder for models and rows; default: a temporary one")
    options = parser.parse_args(argv)
    options.out, options.tokenizer = options.out.resolve(), options.tokenizer and options.tokenizer.resolve()
    options.precision = options.precision or (["tf32", "bf16"] if options.device == "cuda" else ["fp32", "bf16"])
    if options.quick:
        options.model, options.rows, options.repeat = ["small"], options.rows[:1], 1
        options.precision, options.tokenizer = options.precision[:1], None
    return Bench(script, options)


def work(bench: Bench, measure_all: Callable[[Bench], None]) -> None:
    """Call a script's measurements with a folder for what they share."""
    with tempfile.TemporaryDirectory() as folder:
        bench.options.work = Path(bench.options.work or folder).resolve()
        bench.options.work.mkdir(parents=True, exist_ok=True)
        measure_all(bench)
