"""A method's graph and the configs of its stages → the stages of one run, in an order in which they can be built."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefsweep.errors import UserError, nearest
from prefsweep.pipeline.fingerprint import fingerprint
from prefsweep.pipeline.stage import Stage

Graph = Mapping[str, Mapping[str, str]]


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
        """The names of the stages it runs: `stages.<name>.*` of any other is a mistake to set."""
        return {stage.name for stage in self.stages}


def make_plan(
    graph: Graph,
    target: str,
    configs: Mapping[str, Any],
    sections: Mapping[str, Any],
    aliases: Mapping[str, str | None],
    hash_content: Callable[[Path], str],
    elsewhere: Mapping[str, Mapping[str, Any]] | None = None,
    narrowed: Callable[[Any, Any], Any] = lambda config, section: section,
) -> Plan:
    """The stages that `target` needs, and no others. `elsewhere` are sections that roles ending in a name see instead:
    `generate/result/imdb` those of `imdb`. `narrowed` leaves of a section what a stage with that config can tell.

    An input may be an alias: another name for a role, or None for what needs no stage (a pretrained base), which then
    is not an input at all.
    """
    made: dict[str, Stage] = {}
    open_roles: list[str] = []

    def visit(role: str, asked_by: str) -> Stage:
        if role in made:
            return made[role]
        if role not in graph:
            known = sorted({*graph, *aliases})
            raise UserError(f"method.pipeline.{asked_by}: no stage {role}{nearest(role, known)}")
        if role in open_roles:
            raise UserError(f"method.pipeline.{asked_by}: {role} would need itself ({' ← '.join([*open_roles, role])})")
        name = role.partition("/")[0]
        if name not in configs:
            raise UserError(f"method.pipeline.{role}: no such stage{nearest(name, configs)}")
        open_roles.append(role)
        inputs = {}
        for input_name, source in graph[role].items():
            source_role = aliases.get(source, source)
            if source_role is not None:
                inputs[input_name] = visit(source_role, f"{role}.{input_name}")
        open_roles.pop()
        config = configs[name]
        for part in config.reads:
            if part not in sections:
                raise UserError(f"stages.{name}.reads: no section {part}{nearest(part, sections)}")
        seen = {**sections, **(elsewhere or {}).get(role.rpartition("/")[2], {})}
        own = {part: narrowed(config, seen[part]) for part in config.reads}
        made[role] = Stage(role, config, own, inputs, hash_content)
        return made[role]

    visit(target, target)
    return Plan(list(made.values()))
