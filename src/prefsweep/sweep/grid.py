"""A line with several values a key, or an experiment with a `grid:`, → the jobs of the sweep.

Every job is composed, checked and planned here, before the first one starts.
"""

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

from prefsweep.config.compose import compose
from prefsweep.config.overrides import key_of, products
from prefsweep.errors import UserError
from prefsweep.jobs.job import Job, prepare
from prefsweep.jobs.unused_overrides import refuse_used_by_none
from prefsweep.pipeline.fingerprint import fingerprint

BARE = r"[A-Za-z_/][A-Za-z0-9_./+@:-]*"  # a string that needs no quotes on the command line, unless it is
NOT_A_STRING = "null|true|false|nan|inf"  # in Hydra's grammar


@dataclass(frozen=True)
class Grid:
    is_sweep: bool
    name: str
    jobs: list[Job]


def expand(overrides: list[str], multirun: bool, config_dir: Path | None) -> Grid:
    """The jobs of a command line; those that compute the same are one."""
    jobs: dict[str, Job] = {}
    is_sweep = multirun
    for said in products(overrides, multirun):
        config = compose(said, config_dir)
        is_sweep = is_sweep or config.grid is not None
        for job in [prepare(said, config)] if config.grid is None else within(said, config.grid, config_dir):
            jobs.setdefault(job.plan.identity, job)
    if not jobs:
        raise UserError("grid=[]: holds no block, so no job")
    found = list(jobs.values())
    if is_sweep:
        refuse_used_by_none(found)
    return Grid(is_sweep, sweep_name(overrides, found), found)


def within(said: list[str], blocks: list[Any], config_dir: Path | None) -> Iterator[Job]:
    """The jobs of an experiment's grid."""
    for extra in (extra for block in blocks for extra in product(block)):
        line = combine(said, extra)
        yield prepare(line, compose(line, config_dir))


def product(block: Any) -> list[list[str]]:
    """One block of a `grid:` as lines of overrides: the Cartesian product of its lists."""
    if not isinstance(block, dict) or not block or [] in block.values():
        raise UserError(f"grid: each block must be keys with lists of values, not {block!r}")
    keys = {str(key): value if isinstance(value, list) else [value] for key, value in block.items()}
    pairs = [[f"{key}={word(value)}" for value in values] for key, values in keys.items()]
    return [list(line) for line in itertools.product(*pairs)]


def word(value: Any) -> str:
    """A value of a YAML file as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list):
        return "[" + ",".join(map(word, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{word(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str) and (not re.fullmatch(BARE, value) or re.fullmatch(NOT_A_STRING, value.lower())):
        return QuotedString(value, Quote.single).with_quotes()
    return str(value)


def combine(said: list[str], extra: list[str]) -> list[str]:
    """What was said on the command line wins over the experiment's grid."""
    keys = {key_of(override) for override in said}
    return [*said, *(override for override in extra if key_of(override) not in keys)]


def sweep_name(overrides: list[str], jobs: list[Job]) -> str:
    """The name that was given, the experiment's, or a hash of the grid: the same command finds its folder again."""
    if (name := jobs[0].config.sweep) is not None:
        if not re.fullmatch(r"\w[\w.+-]*", name):
            raise UserError(f"sweep={name}: must be the name of one folder, of letters, digits and . _ + -")
        return name
    experiments = [override.partition("=")[2] for override in overrides if key_of(override) == "experiment"]
    if experiments and re.fullmatch(r"[\w.+-]+", experiments[-1]):
        return experiments[-1]
    return "grid-" + fingerprint(sorted(job.plan.identity for job in jobs))[:8]
