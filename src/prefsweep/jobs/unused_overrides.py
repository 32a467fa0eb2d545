"""What was said that a job does not read. A single run refuses it; in a grid it is for the other jobs."""

import dataclasses
from collections.abc import Iterator

from hydra.core.override_parser.overrides_parser import OverridesParser

from prefsweep.config.schema import learns
from prefsweep.errors import UserError
from prefsweep.jobs.job import Job


def unused_keys(job: Job) -> dict[str, str]:
    """Each key that sets what the job does not read → why it is not read."""
    return {key: why for override in job.overrides for key in keys(override) if (why := unread(key, job)) is not None}


def keys(override: str) -> Iterator[str]:
    """`stages={sft:{…},dpo:{…}}` sets two stages, and so is two keys; any other override is one."""
    parsed = OverridesParser.create().parse_override(override)
    key, value = parsed.get_key_element().lstrip("+~"), parsed.value()
    if key == "stages" and isinstance(value, dict):
        yield from (f"stages.{name}" for name in value)
    else:
        yield key


def unread(key: str, job: Job) -> str | None:
    """`stages.dpo.beta`, `stage@stages.dpo`, `reward.label`, `scorer@reward`: where no stage sees it, why not."""
    section, _, rest = key.rpartition("@")[2].partition(".")
    name = rest.partition(".")[0]
    known = {field.name for field in dataclasses.fields(job.config.stages)}
    if section == "stages" and name in known - job.plan.used:
        return f"does not run that stage; it runs {', '.join(sorted(job.plan.used))}"
    if section == "reward" and not any("reward" in stage.sections for stage in job.plan.stages):
        return "asks no reward, and the judge is scorer@judge"
    if key == "dataset.max_train_samples" and not any(
        learns(stage.config, job.config.dataset) for stage in job.plan.stages
    ):
        return "learns from no row"
    return None


def refuse_unused(job: Job) -> None:
    for key, why in unused_keys(job).items():
        raise UserError(f"{key}: method={job.config.method.name} {why}")


def refuse_used_by_none(jobs: list[Job]) -> None:
    """A key that no job of a grid reads is a mistake."""
    idle = set.intersection(*(set(unused_keys(job)) for job in jobs))
    for job in jobs:
        if idle & set(unused_keys(job)):
            refuse_unused(job)
