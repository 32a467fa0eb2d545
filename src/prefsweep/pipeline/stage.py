"""A stage: one cached step of a run, identified by the hash of everything that it computes from."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from prefsweep.pipeline.cost import Cost
from prefsweep.pipeline.fingerprint import canonical, fingerprint
from prefsweep.pipeline.history import History
from prefsweep.pipeline.imports import import_object


@dataclass(frozen=True)
class Context:
    """What a stage function may use beside its config and inputs; nothing here is part of an identity."""

    runtime: Any
    checkpoints: Path  # survives a killed build; empty at the first attempt
    history: History  # rows of metrics by step, also sent to the tracker
    # Yields the folders of finished stages that differ from this one only in the named fields of their config: the
    # results they share need not be computed again.
    find_similar: Callable[..., Iterable[Path]] = lambda *fields: ()
    cost: Cost = field(default_factory=Cost)  # the stage adds its counts to it


@dataclass(frozen=True)
class Stage:
    """`role` names a node of the method's graph (`generate/base`); `name` (`generate`) is what the stage does there."""

    role: str
    config: Any
    sections: dict[str, Any]  # the shared parts of the config that it reads: model, dataset, judge
    inputs: "dict[str, Stage]"
    hash_content: Callable[[Path], str]

    @property
    def name(self) -> str:
        return self.role.partition("/")[0]

    @cached_property
    def payload(self) -> dict[str, Any]:
        """Everything that decides the result, in canonical form; the identity is its hash."""
        return {
            "stage": self.name,
            "config": canonical(self.config, self.hash_content),
            "sections": {name: canonical(part, self.hash_content) for name, part in self.sections.items()},
            "inputs": {name: stage.identity for name, stage in self.inputs.items()},
        }

    @cached_property
    def identity(self) -> str:
        return fingerprint(self.payload)

    @property
    def function(self) -> Callable[..., dict[str, Any]]:
        """The function that builds this stage, imported only when something must be built: it may import torch."""
        function: Callable[..., dict[str, Any]] = import_object(self.config._target_)
        return function
