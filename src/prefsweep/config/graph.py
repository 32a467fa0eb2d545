"""Resolve a method's graph, as its YAML has it, into the roles that a run needs, inputs first.

    pipeline:
      base: pretrain                          # a string: another name for a role
      pretrain: {when: model.from_scratch}    # left out where the condition does not hold
      sft: {policy: base}                     # the stage `sft`; its input `policy` comes from the role `base`
      generate/base: {policy: base}           # the stage `generate`, once for each part
      generate/result: {policy: sft}

A role is `stage` or `stage/part`. Where a role is left out, so is every input that comes from it: the stage that would
read it is called without that argument.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from prefsweep.errors import UserError, nearest

if TYPE_CHECKING:  # the schema imports hydra, which a table does without
    from prefsweep.config.schema import Config, DatasetConfig

WHEN = "when"
Pipeline = Mapping[str, Any]  # role → its inputs, or another role
Inputs = dict[str, str]  # the name of an input → the role it comes from


def stage_of(role: str) -> str:
    """Return the stage of a role: `generate` for `generate/result`."""
    return role.partition("/")[0]


def resolve(pipeline: Pipeline, role: str, holds: Callable[[str, str], bool]) -> str | None:
    """Return the role behind a name, or None where its condition does not hold."""
    names = [role]
    while isinstance(pipeline.get(names[-1]), str):
        names.append(pipeline[names[-1]])
        if names[-1] in names[:-1]:
            raise UserError(f"method.pipeline.{role}: is another name for itself ({' → '.join(names)})")
    condition = pipeline.get(names[-1], {}).get(WHEN)
    return names[-1] if condition is None or holds(names[-1], condition) else None


def needed_roles(pipeline: Pipeline, target: str, holds: Callable[[str, str], bool]) -> dict[str, Inputs]:
    """Return the inputs of each role that `target` needs, in an order in which they can be built.

    `holds(role, condition)` decides a role's `when`. What the target does not need is never looked at.
    """
    done: dict[str, Inputs] = {}
    open_roles: list[str] = []  # the path from the target to the role that is visited

    def visit(role: str, reader: str) -> None:
        if role in done:
            return
        if role not in pipeline:
            raise UserError(f"method.pipeline.{reader}: no stage {role}{nearest(role, sorted(pipeline))}")
        if role in open_roles:
            raise UserError(f"method.pipeline.{reader}: {role} would need itself ({' ← '.join([*open_roles, role])})")
        open_roles.append(role)
        inputs = {name: resolve(pipeline, source, holds) for name, source in pipeline[role].items() if name != WHEN}
        for name, source in inputs.items():
            if source is not None:
                visit(source, f"{role}.{name}")
        open_roles.pop()
        done[role] = {name: source for name, source in inputs.items() if source is not None}

    first = resolve(pipeline, target, holds)
    if first is not None:
        visit(first, target)
    return done


def check_pipeline(pipeline: Pipeline) -> None:
    """Refuse a role that is neither another name nor a dict of inputs."""
    for role, inputs in pipeline.items():
        are_inputs = isinstance(inputs, dict) and all(isinstance(source, str) for source in inputs.values())
        if not (are_inputs or isinstance(inputs, str)):
            raise UserError(f"method.pipeline.{role}={inputs}: must name its inputs, as in {role}: {{policy: base}}")


def holds(config: "Config", role: str, condition: str) -> bool:
    """Whether a role's condition holds: `key=value` where the key has this value, `key` where its value is true.

    `one and another` holds where both do.
    A key may also name a property of a section (`judge.is_trained_here`). In a role whose part is the name of another
    dataset, as `judge_accuracy/imdb`, `dataset` means that one. A key of a stage that the method does not run is false.
    """
    if " and " in condition:
        return all(holds(config, role, part) for part in condition.split(" and "))
    key, _, value = condition.partition("=")
    other: DatasetConfig | None = config.other_datasets.get(role.rpartition("/")[2])
    current: Any = dataclasses.replace(config, dataset=other) if other else config
    for part in key.split("."):
        if current is config.stages and part not in current:
            return False
        if not hasattr(current, part):
            names = [name for name in dir(current) if not name.startswith("_")]
            raise UserError(f"method.pipeline.{role}.when={condition}: no such key{nearest(part, names)}")
        current = getattr(current, part)
    return str(current) == value if value else bool(current)
