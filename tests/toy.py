"""A pipeline in small: gather numbers → learn a value from them → judge it. Nothing here imports torch."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from prefsweep.config.field import config_field
from prefsweep.config.graph import needed_roles
from prefsweep.config.stage import StageConfig
from prefsweep.pipeline.cost import Cost
from prefsweep.pipeline.files import FileHashes, write_json
from prefsweep.pipeline.history import Row
from prefsweep.pipeline.plan import Plan, make_plan
from prefsweep.pipeline.runner import Listener, run
from prefsweep.pipeline.stage import Context, Stage
from prefsweep.pipeline.store import BuildFolder, Record, Store

GRAPH = {"gather": {}, "learn": {"numbers": "gather"}, "judge": {"model": "learn"}}
SAVE_EVERY = 3


@dataclass
class World:
    name: str = config_field(hashed=False)
    scale: float = config_field()


@dataclass
class ToyConfig(StageConfig):
    pass


@dataclass
class GatherConfig(ToyConfig):
    size: int = config_field()


@dataclass
class LearnConfig(ToyConfig):
    steps: int = config_field()
    rate: float = config_field()
    nickname: str = config_field(hashed=False)


@dataclass
class JudgeAccuracyConfig(ToyConfig):
    pass


@dataclass(frozen=True)
class Runtime:
    """Where it runs, and what shall go wrong there: the stage and the step after which it dies or fails."""

    diary: Path
    die_after: tuple[str, int] | None = None
    fail_after: tuple[str, int] | None = None
    wait_for_company: bool = False

    def note(self, line: str) -> None:
        with self.diary.open("a") as file:
            file.write(line + "\n")


# ----------------------------------------------------------------------------------------------------- stage functions


def gather(config: GatherConfig, *, world: World, folder: Path, context: Context) -> dict[str, Any]:
    """Logs, but keeps no checkpoint: a second attempt starts anew."""
    context.runtime.note("gather began")
    if context.runtime.wait_for_company:
        wait_for_company(context.runtime.diary)
    numbers = [world.scale * index for index in range(config.size)]
    for step, number in enumerate(numbers, start=1):
        end_step("gather", step, {"number": number}, context)
    (folder / "parts").mkdir()
    write_json(folder / "parts" / "numbers.json", numbers)
    return {"size": len(numbers)}


def learn(config: LearnConfig, *, numbers: Path, folder: Path, context: Context) -> dict[str, Any]:
    """A loop whose every step needs the one before, with a checkpoint every few steps."""
    context.runtime.note("learn began")
    known, checkpoint = json.loads((numbers / "parts" / "numbers.json").read_text()), context.checkpoints / "state.json"
    state: dict[str, Any] = {"step": 0, "value": 1.0}
    if checkpoint.exists():
        state = json.loads(checkpoint.read_text())
    context.history.rewind(state["step"])
    for step in range(state["step"] + 1, config.steps + 1):
        value = (state["value"] * 31 + config.rate * known[step % len(known)]) % 1009
        state = {"step": step, "value": value}
        end_step("learn", step, {"value": value}, context)
        if step % SAVE_EVERY == 0:
            write_json(checkpoint, state)
    write_json(folder / "value.json", state["value"])
    return {"value": state["value"]}


def judge(config: JudgeAccuracyConfig, *, folder: Path, context: Context, **models: Path) -> dict[str, Any]:
    context.runtime.note("judge began")
    value = sum(json.loads((model / "value.json").read_text()) for model in models.values())
    write_json(folder / "value.json", value)
    return {"value": value}


def end_step(stage: str, step: int, metrics: dict[str, Any], context: Context) -> None:
    context.runtime.note(f"{stage} {step}")
    context.history.append(step, metrics)
    if context.runtime.fail_after == (stage, step):
        raise RuntimeError(f"{stage} failed after step {step}")
    if context.runtime.die_after == (stage, step):
        with context.history.path.open("a") as file:
            file.write(f'{{"step": {step + 1}, "val')  # the kill comes in the middle of a row
        os.kill(os.getpid(), signal.SIGKILL)


def wait_for_company(diary: Path) -> None:
    """Until a second process is seen: waiting at the lock, or (which is what must not happen) building as well."""
    for _ in range(1000):
        text = diary.read_text()
        if "waiting" in text or text.count("gather began") > 1:
            return
        time.sleep(0.02)
    raise TimeoutError("no second process came")


# ------------------------------------------------------------------------------------------------ plans, stores, runs


def toy_plan(
    root: Path, changes: dict[str, Any] | None = None, graph: dict[str, Any] | None = None, target: str = "judge"
) -> Plan:
    """`changes` are values by their dotted names, as in {"learn.rate": 0.5}; a condition holds if it is "true"."""
    nodes: dict[str, Any] = {
        "gather": GatherConfig("toy.gather", 1, ["world"], size=4),
        "learn": LearnConfig("toy.learn", 1, [], steps=10, rate=0.25, nickname="first"),
        "judge": JudgeAccuracyConfig("toy.judge", 1, []),
        "world": World("home", scale=1.5),
    }
    for key, value in (changes or {}).items():
        node, _, field = key.partition(".")
        nodes[node] = replace(nodes[node], **{field: value})
    world = nodes.pop("world")
    roles = needed_roles(graph or GRAPH, target, lambda role, condition: condition == "true")
    hash_content = FileHashes(root / "hashes.json").of_content
    return make_plan(roles, nodes, lambda role, config: dict.fromkeys(config.reads, world), hash_content)


def toy_store(root: Path, say: Callable[[str], None] = print) -> Store:
    return Store(root / "stages", FileHashes(root / "hashes.json"), say)


class RecordingListener(Listener):
    """A listener that remembers."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.rows: dict[str, list[Row]] = {}

    def reused(self, stage: Stage, folder: Path, record: Record) -> None:
        self.events.append(f"reused {stage.role}")

    def started(self, stage: Stage) -> None:
        self.events.append(f"started {stage.role}")

    def logged(self, stage: Stage, row: Row) -> None:
        self.events.append(f"logged {stage.role} {row['step']}")
        self.rows.setdefault(stage.role, []).append(row)

    def built(self, stage: Stage, folder: Path, record: Record) -> None:
        assert (folder / "record.json").is_file(), "told before it was there"
        self.events.append(f"built {stage.role}")


def build(root: Path, plan: Plan | None = None, **wrong: Any) -> tuple[dict[str, Record], RecordingListener]:
    """Run a plan (the usual one) under `root`; `wrong` goes to the runtime."""
    root.mkdir(parents=True, exist_ok=True)
    listener, runtime = RecordingListener(), Runtime(root / "diary", **wrong)
    return run(plan or toy_plan(root), toy_store(root, say=runtime.note), runtime, listener), listener


def build_elsewhere(root: Path, **wrong: Any) -> BaseProcess:
    """The same in a process of its own, just started."""
    process = multiprocessing.get_context("spawn").Process(target=build, args=(root,), kwargs=wrong)
    process.start()
    return process


def build_and_die(root: Path, stage: str, step: int) -> None:
    process = build_elsewhere(root, die_after=(stage, step))
    process.join()
    assert process.exitcode == -signal.SIGKILL


def diary(root: Path, about: str = "") -> list[str]:
    """What was done under `root`, by whatever process."""
    return [line for line in (root / "diary").read_text().splitlines() if line.startswith(about)]


def workplace(root: Path, role: str) -> BuildFolder:
    stage = stage_of(root, role)
    aside = root / "stages" / stage.name / ".building" / stage.identity
    return BuildFolder(aside / "artifact", aside / "checkpoints", aside / "history.jsonl", Cost(aside))


def stage_of(root: Path, role: str) -> Stage:
    return next(stage for stage in toy_plan(root).stages if stage.role == role)


def artifact(root: Path, role: str) -> Path:
    return toy_store(root).folder(stage_of(root, role))
