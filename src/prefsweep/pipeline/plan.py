"""A method's graph and the configs of its stages → the stages of one run, in an order in which they can be built."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefsweep.config.graph import Inputs, stage_of
from prefsweep.errors import UserError, nearest
from prefsweep.pipeline.fingerprint import fingerprint
from prefsweep.pipeline.stage import Stage


@dataclass(frozen=True)
class Plan:
    stages: list[Stage]  # inputs before those who read them; the last is the target

    @property
    def target(self) -> Stage:
        return self.stages[-1]

    @property
    def identity(self) -> str:
        """Two jobs with equal ones compute the same."""
        return fingerprint({stage.role: stage.identity for stage in self.stages})

    @property
    def used(self) -> set[str]:
        """The names of the stages it runs."""
        return {stage.name for stage in self.stages}


def make_plan(
    roles: Mapping[str, Inputs],
    configs: Mapping[str, Any],
    sections: Callable[[str, Any], dict[str, Any]],
    hash_content: Callable[[Path], str],
) -> Plan:
    """Return the stages of `roles`, which are ordered as `graph.needed_roles` orders them, the target last.

    `sections(role, config)` are the shared parts of the config that the stage in that role reads.
    """
    stages: dict[str, Stage] = {}
    for role, inputs in roles.items():
        name = stage_of(role)
        if name not in configs:
            raise UserError(f"method.pipeline.{role}: no such stage{nearest(name, configs)}")
        config = configs[name]
        sources = {key: stages[source] for key, source in inputs.items() if not config.ignores_input(key)}
        stages[role] = Stage(role, config, sections(role, config), sources, hash_content)
    needed = {stage.role for stage in behind(list(stages.values())[-1])}
    return Plan([stage for role, stage in stages.items() if role in needed])


def behind(stage: Stage) -> list[Stage]:
    """Return a stage and all that it is computed from, each once."""
    found: dict[str, Stage] = {}
    waiting = [stage]
    while waiting:
        reader = waiting.pop()
        if reader.role not in found:
            found[reader.role] = reader
            waiting += reader.inputs.values()
    return list(found.values())
