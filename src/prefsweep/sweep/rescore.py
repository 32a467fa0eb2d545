"""Score the finished runs of a sweep again: with another judge, or on more prompts. No policy is trained."""

from pathlib import Path

from prefsweep.config.compose import compose
from prefsweep.config.overrides import key_of
from prefsweep.errors import UserError
from prefsweep.jobs.job import Job, prepare, store_of
from prefsweep.pipeline.runner import missing
from prefsweep.report.runs import Run, read_runs, records
from prefsweep.sweep.grid import Grid, sweep_name


def rescore(folder: Path, overrides: list[str], config_dir: Path | None) -> Grid:
    """Return the sweep's finished jobs with `overrides` applied, as a sweep with a name of its own."""
    jobs: dict[str, Job] = {}
    keys = {key_of(override) for override in overrides}
    changes = overrides if "sweep" in keys else [*overrides, f"sweep={folder.resolve().name}{suffix(overrides)}"]
    replaced = {*keys, "sweep", "grid"}
    for run in (run for run in records(read_runs([folder])) if run["has_result"]):
        unchanged = [override for override in overrides_of(run) if key_of(override) not in replaced]
        line = [*unchanged, "grid=null", *changes]
        job = prepare(line, compose(line, config_dir))
        refuse_training(job, run)
        jobs.setdefault(job.plan.identity, job)
    if not jobs:
        raise UserError(f"{folder}: no finished run in it; run the sweep first")
    distinct = list(jobs.values())
    return Grid(True, sweep_name(changes, distinct), distinct)


def suffix(overrides: list[str]) -> str:
    """Return what the new sweep's name ends with: `-by-deberta-v3` for another judge, else `-again`."""
    judges = [override.partition("=")[2] for override in overrides if key_of(override) == "scorer@judge"]
    return f"-by-{judges[-1]}" if judges else "-again"


def overrides_of(run: Run) -> list[str]:
    """Return the overrides of a run; raise a UserError where its run.json has none."""
    if not run["overrides"]:
        raise UserError(f"{run['folder'] / 'run.json'}: holds no overrides; run the sweep again")
    return list(run["overrides"])


def refuse_training(job: Job, run: Run) -> None:
    """Raise a UserError if scoring this job would build a stage that `rescore` must not build."""
    trained = [
        stage.role for stage in missing(job.plan, store_of(job.config.runtime)) if not stage.config.built_by_rescoring
    ]
    if trained:
        raise UserError(
            f"{run['name']}: its {', '.join(trained)} would be built again: an override changes what is trained, or "
            f"{job.config.runtime.outputs} is not where the sweep's stages are"
        )
