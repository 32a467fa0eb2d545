"""Expand a command line with several values per key, or an experiment with a `grid:`, into the jobs of a sweep.

Every job is composed, checked and planned here, before the first one starts; an override that none of them reads is
refused.
"""

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

from prefsweep.config.compose import compose, stage_keys
from prefsweep.config.overrides import key_of, parse, products
from prefsweep.config.schema import ABOUT_TRAINING_ROWS
from prefsweep.errors import UserError
from prefsweep.jobs.job import Job, prepare
from prefsweep.pipeline.fingerprint import fingerprint

BARE = r"[A-Za-z_/][A-Za-z0-9_./+@:-]*"  # a string that needs no quotes on the command line
NOT_A_STRING = "null|true|false|nan|inf"  # except these words, which Hydra's grammar reads as other values


@dataclass(frozen=True)
class Grid:
    is_sweep: bool
    name: str
    jobs: list[Job]


def expand(overrides: list[str], multirun: bool, config_dir: Path | None) -> Grid:
    """Return the jobs of a command line; those that compute the same are one job."""
    jobs: dict[str, Job] = {}
    is_sweep = multirun
    for line in products(overrides, multirun):
        config = compose(line, config_dir)
        is_sweep = is_sweep or config.grid is not None
        for job in [prepare(line, config)] if config.grid is None else jobs_of_grid(line, config.grid, config_dir):
            jobs.setdefault(job.plan.identity, job)
    if not jobs:
        raise UserError("grid=[]: has no block, so there is no job to run; set grid=null or add a block")
    distinct = list(jobs.values())
    refuse_unused(distinct)
    return Grid(is_sweep, sweep_name(overrides, distinct), distinct)


def jobs_of_grid(overrides: list[str], blocks: list[Any], config_dir: Path | None) -> Iterator[Job]:
    """Yield the jobs of an experiment's grid. The command line wins over its settings of the same keys."""
    keys = {key_of(override) for override in overrides}
    for block in blocks:
        for settings in product(block):
            line = [*overrides, *(setting for setting in settings if key_of(setting) not in keys)]
            yield prepare(line, compose(line, config_dir))


def product(block: Any) -> list[list[str]]:
    """Return the Cartesian product of the lists in one block of a `grid:`, as lists of overrides."""
    if not isinstance(block, dict) or not block or [] in block.values():
        raise UserError(f"grid: each block must be keys with lists of values, not {block!r}")
    keys = {str(key): value if isinstance(value, list) else [value] for key, value in block.items()}
    pairs = [[f"{key}={format_value(value)}" for value in values] for key, values in keys.items()]
    return [list(line) for line in itertools.product(*pairs)]


def format_value(value: Any) -> str:
    """Return a value of a YAML file as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list):
        return "[" + ",".join(map(format_value, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{format_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str) and (not re.fullmatch(BARE, value) or re.fullmatch(NOT_A_STRING, value.lower())):
        return QuotedString(value, Quote.single).with_quotes()
    return str(value)


def sweep_name(overrides: list[str], jobs: list[Job]) -> str:
    """Return `sweep=`, or the experiment's name, or a hash of the grid, so that the same command reuses its folder."""
    if (name := jobs[0].config.sweep) is not None:
        if not re.fullmatch(r"\w[\w.+-]*", name):
            raise UserError(f"sweep={name}: is no name of a folder; use letters, digits and . _ + -")
        return name
    experiments = [override.partition("=")[2] for override in overrides if key_of(override) == "experiment"]
    if experiments and re.fullmatch(r"[\w.+-]+", experiments[-1]):
        return experiments[-1]
    return "grid-" + fingerprint(sorted(job.plan.identity for job in jobs))[:8]


def refuse_unused(jobs: Sequence[Job]) -> None:
    """Raise a UserError for the first key that no job reads; in a grid, one that some jobs read is no mistake."""
    unused = [unused_keys(job) for job in jobs]
    for key, reason in unused[0].items():
        if all(key in keys for keys in unused):
            raise UserError(f"{key}: method={jobs[0].config.method.name} {reason}")


def unused_keys(job: Job) -> dict[str, str]:
    """Return each key that is set and not read by this job, with why it is not."""
    pairs = zip(job.overrides, parse(job.overrides), strict=True)
    keys = (key for word, override in pairs for key in stage_keys(override) or [key_of(word)])
    return {key: reason for key in keys if (reason := why_unused(key, job)) is not None}


def why_unused(key: str, job: Job) -> str | None:
    """Return why no stage of the job reads a key such as `stages.dpo.beta`, `reward.label`, `scorer@reward`."""
    section, _, rest = key.rpartition("@")[2].partition(".")
    if section == "stages" and rest.partition(".")[0] not in job.plan.used:
        return f"does not run that stage; it runs {', '.join(sorted(job.plan.used))}"
    if section == "reward" and not any("reward" in stage.sections for stage in job.plan.stages):
        return "reads no reward; the judge is set by scorer@judge"
    if key in [f"dataset.{name}" for name in ABOUT_TRAINING_ROWS] and not job.learns:
        return "trains on no row"
    return None
