"""Start from the finished runs of a sweep: `rescore` judges them by another judge or on more prompts, and trains no
policy; `confirm` runs the best configuration on fresh seeds, on which it cannot have been chosen for its luck.
"""

from pathlib import Path

from prefsweep.config.compose import compose
from prefsweep.config.overrides import key_of
from prefsweep.errors import UserError
from prefsweep.jobs.job import Job, prepare, store_of
from prefsweep.pipeline.runner import missing
from prefsweep.report.choice import Choice
from prefsweep.report.runs import Run, read_runs, records
from prefsweep.sweep.grid import Grid, format_value, sweep_name

SWEEP_KEYS = ("seed", "sweep", "grid", "jobs", "report.note")  # which `confirm` sets itself


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
    runtime = job.config.runtime
    trained = [stage.role for stage in missing(job.plan, store_of(runtime)) if not stage.config.built_by_rescoring]
    if trained:
        reasons = f"an override changes what is trained, or {runtime.outputs} is not where the sweep's stages are"
        raise UserError(f"{run['name']}: its {', '.join(trained)} would be built again: {reasons}")


def confirm_overrides(choice: Choice, folder: Path, seeds: int, note: str) -> list[str]:
    """Return the overrides of the chosen runs with `seeds` seeds that the sweep has not used."""
    run = records(choice.runs)[0]
    overrides = [override for override in overrides_of(run) if key_of(override) not in SWEEP_KEYS]
    first = max((seed for seed in choice.runs["seed"] if isinstance(seed, int)), default=0) + 1
    fresh = ",".join(str(seed) for seed in range(first, first + seeds))
    sweep = f"sweep={folder.resolve().name}-confirm"
    return [*overrides, "grid=null", f"report.note={format_value(note)}", f"seed={fresh}", sweep]
