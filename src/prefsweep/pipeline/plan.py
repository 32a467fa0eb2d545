"""Turn a method's graph and the configs of its stages into the stages of one run, in an order to build them in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefsweep.config.graph import Inputs, stage_of
from prefsweep.pipeline.fingerprint import fingerprint
from prefsweep.pipeline.stage import Stage


@dataclass(frozen=True)
class Plan:
    stages: list[Stage]  # inputs before the stages that read them; the last is the target

    @property
    def target(self) -> Stage:
        return self.stages[-1]

    @property
    def identity(self) -> str:
        """The hash of every stage: two jobs with equal identities compute the same."""
        return fingerprint({stage.role: stage.identity for stage in self.stages})

    @property
    def used(self) -> set[str]:
        """The names of the stages in this plan."""
        return {stage.name for stage in self.stages}


def make_plan(
    roles: Mapping[str, Inputs],
    configs: Mapping[str, Any],
    sections: Callable[[str, Any], dict[str, Any]],
    hash_content: Callable[[Path], str],
) -> Plan:
    """Return the stages of `roles`, which are ordered as `graph.needed_roles` orders them, the target last.

    `sections(role, config)` returns the shared parts of the config that the stage in that role reads.
    """
    stages: dict[str, Stage] = {}
    for role, inputs in roles.items():
        config = configs[stage_of(role)]
        sources = {key: stages[source] for key, source in inputs.items() if not config.ignores_input(key)}
        stages[role] = Stage(role, config, sections(role, config), sources, hash_content)
    needed = {stage.role for stage in with_ancestors(list(stages.values())[-1])}
    return Plan([stage for role, stage in stages.items() if role in needed])


def with_ancestors(stage: Stage) -> list[Stage]:
    """Return a stage and all stages that it is computed from, each once."""
    stages: dict[str, Stage] = {}
    pending = [stage]
    while pending:
        reader = pending.pop()
        if reader.role not in stages:
            stages[reader.role] = reader
            pending += reader.inputs.values()
    return list(stages.values())
