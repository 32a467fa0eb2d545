"""Reject overrides that no stage reads: in a single run any, in a grid those that every job ignores."""

from collections.abc import Sequence

from prefsweep.config.compose import stage_keys
from prefsweep.config.overrides import key_of, parse
from prefsweep.errors import UserError
from prefsweep.jobs.job import Job


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
    if key == "dataset.max_train_samples" and not job.learns:
        return "trains on no row"
    return None


def refuse_unused(jobs: Sequence[Job]) -> None:
    """Raise a UserError for the first key that no job reads; in a grid, one that some jobs read is no mistake."""
    unused = [unused_keys(job) for job in jobs]
    for key, reason in unused[0].items():
        if all(key in keys for keys in unused):
            raise UserError(f"{key}: method={jobs[0].config.method.name} {reason}")
