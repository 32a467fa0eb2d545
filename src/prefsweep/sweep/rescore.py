"""The runs of a sweep judged again: by another judge, on more prompts. No policy is trained."""

from pathlib import Path

from prefsweep.config.compose import compose
from prefsweep.config.overrides import key_of
from prefsweep.errors import UserError
from prefsweep.jobs.job import Job, prepare, store_of
from prefsweep.pipeline.runner import missing
from prefsweep.report.runs import Run, read_runs, records
from prefsweep.sweep.grid import Grid, sweep_name


def rescore(folder: Path, words: list[str], config_dir: Path | None) -> Grid:
    """The sweep's finished jobs with these words, as a sweep of their own beside it."""
    jobs: dict[str, Job] = {}
    said = {key_of(word) for word in words}
    named = words if "sweep" in said else [*words, f"sweep={folder.resolve().name}{suffix(words)}"]
    for run in (run for run in records(read_runs([folder])) if run["has_result"]):
        line = [word for word in words_of(run) if key_of(word) not in {*said, "sweep", "grid"}] + ["grid=null", *named]
        job = prepare(line, compose(line, config_dir))
        refuse_training(job, run)
        jobs.setdefault(job.plan.identity, job)
    if not jobs:
        raise UserError(f"{folder}: no finished run in it; run the sweep first")
    found = list(jobs.values())
    return Grid(True, sweep_name(named, found), found)


def suffix(words: list[str]) -> str:
    """`-by-deberta-v3`; the choice of a judge is what tells two judgings apart."""
    judges = [word.partition("=")[2] for word in words if key_of(word) == "scorer@judge"]
    return f"-by-{judges[-1]}" if judges else "-again"


def words_of(run: Run) -> list[str]:
    if not run["overrides"]:
        raise UserError(f"{run['folder']}: does not say the words of its command; run the sweep again")
    return list(run["overrides"])


def refuse_training(job: Job, run: Run) -> None:
    trained = [
        stage.role for stage in missing(job.plan, store_of(job.config.runtime)) if not stage.config.built_by_rescoring
    ]
    if trained:
        raise UserError(
            f"{run['name']}: its {', '.join(trained)} would be built again: a word changes what is trained, or "
            f"{job.config.runtime.outputs} is not where the sweep's stages are"
        )
