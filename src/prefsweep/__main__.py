"""The one entrypoint: compose → plan → run → run.json.

Exit codes: 0 done; 1 a run or a job of a sweep failed (a bug keeps its traceback); 2 bad input, said in one line;
130 interrupted.
"""

import contextlib
import io
import os
import signal
import sys
from pathlib import Path

from prefsweep import __version__
from prefsweep.cli import parser
from prefsweep.errors import DivergedError, UserError


def main() -> int:
    # TRL reports each trainer's name to the hub, from a thread of its own: a run talks to no one it was not asked to.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Where a repository has a .bin alone, transformers asks the hub to convert it, from a thread of its own.
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    try:
        return dispatch(sys.argv[1:])
    except UserError as error:
        print(f"prefsweep: {error}", file=sys.stderr)
        return 2
    except DivergedError as error:
        print(f"prefsweep: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("prefsweep: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def dispatch(argv: list[str]) -> int:
    if argv and argv[0] == "table":
        return table(argv[1:])
    if argv and argv[0] == "diff":
        return diff(argv[1:])
    if argv and argv[0] in ("best", "confirm"):
        return choose(argv[0], argv[1:])
    if argv and argv[0] == "judge":
        return judge(argv[1:])
    if argv and argv[0] == "score":
        return score(argv[1:])
    if argv and argv[0] == "export":
        return export(argv[1:])
    if argv and argv[0] == "show":
        return show(argv[1:])
    line = parser.parse(argv)
    if line.help:
        print(parser.help_text())
    elif line.version:
        print(f"prefsweep {__version__}")
    elif line.completion is not None:
        complete(line.completion)
    elif line.cfg:
        show_config(line)
    else:
        return run(line)
    return 0


def run(line: parser.Line) -> int:
    """One job, or a sweep where the line or its experiment says so."""
    from prefsweep.config.compose import composing
    from prefsweep.sweep.grid import expand

    with composing(line.config_dir):
        grid = expand(line.overrides, line.multirun, line.config_dir)
        if grid.is_sweep:
            from prefsweep.sweep.driver import sweep

            return sweep(grid)
    (job,) = grid.jobs
    from prefsweep.jobs import console
    from prefsweep.jobs.job import store_of
    from prefsweep.jobs.unused_overrides import refuse_unused

    refuse_unused(job)
    console.show_plan(job.plan, store_of(job.config.runtime), job.name)
    if job.config.runtime.dry_run:
        return 0
    from prefsweep.jobs.run import execute, terminated
    from prefsweep.sweep.devices import gpus, least_used, see_only

    see_only(least_used(gpus(), []))
    signal.signal(signal.SIGTERM, terminated)
    folder = Path(job.config.runtime.outputs) / "runs" / job.name
    execute(job, folder)
    console.show_metrics_of(folder)
    return 0


def table(words: list[str]) -> int:
    from rich.console import Console

    from prefsweep.report import Layout, report, table_of

    console = Console(highlight=False)  # that of jobs would cost a fifth of a second
    line = parser.parse_table(words)
    if words == [str(line.folders[0])]:  # nothing but a sweep: all that its end would have written
        report(line.folders[0], console)
        return 0
    layout = Layout(line.rows, line.columns, line.metrics)
    for path in table_of(line.folders, layout, line.format, line.out, console):
        console.print(str(path), soft_wrap=True, markup=False)
    return 0


def export(words: list[str]) -> int:
    from prefsweep.cli.export import export as write

    run, target, merge = parser.parse_export(words)
    write(run, target, merge)
    print(f"{target}: written")
    return 0


def diff(words: list[str]) -> int:
    from prefsweep.jobs.console import console
    from prefsweep.report.diff import diff as show

    if len(words) != 2 or any(word.startswith("-") for word in words):
        raise UserError("diff: needs the folders of two runs, as in: prefsweep diff outputs/runs/A outputs/runs/B")
    show(Path(words[0]), Path(words[1]), console)
    return 0


def choose(command: str, words: list[str]) -> int:
    """The best configuration of a sweep; `confirm` runs it on fresh seeds."""
    from prefsweep.jobs.console import console
    from prefsweep.report.choice import best

    folder, by, seeds = parser.parse_choice(command, words)
    if command == "best" and by is None:
        raise UserError("best: say by which validation metric, as in: prefsweep best SWEEP --by validation/loss")
    chosen, count = best(folder, by, console)
    if command == "best":
        return 0
    from prefsweep.sweep.confirm import confirming

    why = f"On fresh seeds: the best of {count} configurations of {folder.resolve().name}" + (
        f" by {by}." if by else "."
    )
    words = confirming(chosen, folder, seeds, why)
    console.print(" ".join(["prefsweep -m", *words]), soft_wrap=True, markup=False)
    return run(parser.Line(overrides=words, multirun=True))


def judge(words: list[str]) -> int:
    """The runs of a sweep by another judge."""
    from prefsweep.config.compose import composing
    from prefsweep.sweep.driver import sweep
    from prefsweep.sweep.rescore import rescore

    folder, overrides, config_dir = parser.parse_judge(words)
    with composing(config_dir):
        grid = rescore(folder, overrides, config_dir)
        return sweep(grid)


def show(words: list[str]) -> int:
    """A dataset as the model reads it."""
    from prefsweep.config.compose import compose, composing

    overrides, split, config_dir = parser.parse_show(words)
    with composing(config_dir):
        config = compose(overrides, config_dir)
    from prefsweep.cli.preview import show as draw
    from prefsweep.jobs.console import console

    draw(config, split, console)
    return 0


def score(words: list[str]) -> int:
    """What a scorer says of one text: a look at it before a run depends on it."""
    from prefsweep.config.compose import compose, composing

    overrides, prompt, completion, config_dir = parser.parse_score(words)
    with composing(config_dir):
        config = compose(overrides, config_dir)
    from prefsweep.hub import pinned
    from prefsweep.models.loading import device
    from prefsweep.models.scorers import load_scorer

    scorer = load_scorer(pinned(config.reward, Path(config.runtime.outputs), True), device(config.runtime))
    for name, (value,) in scorer.score([prompt], [completion]).items():
        print(f"{name:<12} {value:.4f}")
    return 0


def show_config(line: parser.Line) -> None:
    from omegaconf import OmegaConf

    from prefsweep.config.compose import compose, compose_raw, composing

    if line.multirun:
        raise UserError("--cfg: shows the config of one job; leave out -m and give each key one value")
    with composing(line.config_dir):
        compose(line.overrides, line.config_dir)  # what is shown has been checked
        print(OmegaConf.to_yaml(compose_raw(line.overrides, line.config_dir), resolve=line.resolve), end="")


def complete(what: str) -> None:
    """Hydra's own tab completion, over our config; files that others are made of are left out."""
    import hydra

    from prefsweep import config_folder
    from prefsweep.config import schema

    command = os.environ.get("COMP_LINE", "").split()[1:2]
    if what.startswith("query") and command and command[0] in parser.OF_FOLDERS:
        return  # folders: the shell completes them itself
    schema.register()
    sys.argv = [sys.argv[0], "-sc", what]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        hydra.main(config_path=str(config_folder()), config_name="config", version_base="1.3")(lambda _: None)()
    if what.startswith("query"):
        words = said.getvalue().split()
        print(" ".join(word for word in words if "=_" not in word and not word.startswith("hydra")))
    else:
        print(said.getvalue(), end="")


if __name__ == "__main__":
    sys.exit(main())
