"""The words after `prefsweep`, sorted: flags anywhere on the line, Hydra's overrides, or a command with a folder."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefsweep import config_folder
from prefsweep.errors import UserError, nearest

COMMANDS = {
    "table": "prefsweep table DIR...                   the table of runs, finished and not; one of several folders\n"
    "      [--rows KEY,...] [--columns KEY,...] [--metrics METRIC,...] [--format md|tex|csv|html] [--out DIR]",
    "diff": "prefsweep diff A B                       two runs: config, metrics paired over prompts, answers",
    "best": "prefsweep best SWEEP --by METRIC         the best configuration by validation, and its test table",
    "confirm": "prefsweep confirm SWEEP [--by METRIC] [--seeds 5]   the same on fresh seeds: no winner's curse",
    "judge": "prefsweep judge SWEEP scorer@judge=X [key=value ...]   its answers by another judge; nothing is trained",
    "show": "prefsweep show [SPLIT] [key=value ...]         a dataset as the model reads it: tokens, cuts, duplicates",
    "score": 'prefsweep score SCORER "text" ["answer"]  what a scorer says of a text, or of an answer to a prompt',
    "export": "prefsweep export RUN DIR [--merge]        the policy of a run or stage as a plain transformers folder",
}
OF_FOLDERS = ("table", "diff", "best", "confirm")  # commands whose words the shell completes itself
SPLITS = ("train", "validation", "test")
CONFIG_DIR = ("-cd", "--config-dir")
FLAGS = ("-m", "--multirun", "-h", "--help", "--version", "--resolve", "-c", "--cfg", *CONFIG_DIR)


@dataclass
class Line:
    overrides: list[str] = field(default_factory=list)
    multirun: bool = False
    help: bool = False
    version: bool = False
    cfg: bool = False
    resolve: bool = False
    config_dir: Path | None = None
    completion: str | None = None


def parse(argv: list[str]) -> Line:
    line, words = Line(), iter(argv)
    for word in words:
        name, _, attached = word.partition("=")
        if word in ("-m", "--multirun"):
            line.multirun = True
        elif word in ("-h", "--help"):
            line.help = True
        elif word == "--version":
            line.version = True
        elif word == "--resolve":
            line.resolve = True
        elif name in ("-c", "--cfg"):
            if (attached or value_of(word, words)) != "job":
                raise UserError(f"{word}: only the job's config can be shown: --cfg job")
            line.cfg = True
        elif name in CONFIG_DIR:
            line.config_dir = Path(attached or value_of(word, words))
        elif name in ("-sc", "--shell-completion"):
            line.completion = attached or value_of(word, words)
            if not re.fullmatch(r"(install|uninstall|query)=(bash|zsh|fish)", line.completion):
                raise UserError(f"{word}: say install=bash, uninstall=bash or query=bash; or zsh, or fish")
        elif word.startswith("-"):
            raise UserError(f"{word}: no such flag{nearest(word, FLAGS)}; `prefsweep --help` lists them")
        elif word.startswith("=") or ("=" not in word and not word.startswith("~")):
            raise UserError(f"{word}: not key=value and not a command{nearest(word, COMMANDS)}; see `prefsweep --help`")
        else:
            line.overrides.append(word)
    if line.resolve and not line.cfg:
        raise UserError("--resolve: says how --cfg job prints; add --cfg job")
    return line


@dataclass
class TableLine:
    folders: list[Path] = field(default_factory=list)
    rows: list[str] | None = None
    columns: list[str] = field(default_factory=list)
    metrics: list[str] | None = None
    format: str | None = None
    out: Path | None = None


TABLE_FLAGS = ("--rows", "--columns", "--metrics", "--format", "--out")
TABLE_FORMATS = ("md", "tex", "csv", "html")


def parse_table(argv: list[str]) -> TableLine:
    line, words = TableLine(), iter(argv)
    for word in words:
        name, _, attached = word.partition("=")
        if not word.startswith("-"):
            line.folders.append(Path(word))
            continue
        if name not in TABLE_FLAGS:
            raise UserError(f"{word}: no such flag of table{nearest(name, TABLE_FLAGS)}")
        value = attached or value_of(word, words)
        if name == "--format" and value not in TABLE_FORMATS:
            raise UserError(f"--format {value}: say {', '.join(TABLE_FORMATS)}")
        said: Any = value if name == "--format" else Path(value) if name == "--out" else value.split(",")
        setattr(line, name.removeprefix("--"), said)
    if not line.folders:
        raise UserError("table: needs a folder, as in: prefsweep table multirun_sweeps/demo")
    return line


def parse_choice(command: str, argv: list[str]) -> tuple[Path, str | None, int]:
    """`SWEEP [--by METRIC] [--seeds N]` → the folder, the metric, how many seeds."""
    folders, by, seeds, words = [], None, 5, iter(argv)
    flags = ("--by", "--seeds") if command == "confirm" else ("--by",)
    for word in words:
        name, _, attached = word.partition("=")
        if not word.startswith("-"):
            folders.append(Path(word))
        elif name not in flags:
            raise UserError(f"{word}: no such flag of {command}{nearest(word, flags)}")
        elif name == "--by":
            by = attached or value_of(word, words)
        else:
            number = attached or value_of(word, words)
            if not number.isdigit() or int(number) < 1:
                raise UserError(f"--seeds {number}: must be a number of seeds, 1 or more")
            seeds = int(number)
    if len(folders) != 1:
        raise UserError(f"{command}: needs one sweep, as in: prefsweep {command} multirun_sweeps/demo")
    return folders[0], by, seeds


def parse_score(words: list[str]) -> tuple[list[str], str, str, Path | None]:
    """`SCORER [key=value...] "text" ["answer"]` → overrides, prompt, answer and the folder after -cd; one text is an
    answer to nothing."""
    words, config_dir = without_config_dir(words)
    scorer, *rest = words or [""]
    if not scorer or "=" in scorer:
        raise UserError('score: needs a scorer and a text, as in: prefsweep score oracle "The plot was witty."')
    settings = [word for word in rest if re.match(r"[a-z_][a-z_.]*=", word)]
    texts = [word for word in rest if word not in settings]
    if len(texts) not in (1, 2):
        raise UserError(f"score: takes one text, or a prompt and an answer, not {len(texts)}; put quotes around each")
    whole = [word if word.startswith(("runtime", "reward.")) else f"reward.{word}" for word in settings]
    return [f"scorer@reward={scorer}", *whole], texts[0] if len(texts) == 2 else "", texts[-1], config_dir


def without_config_dir(words: list[str]) -> tuple[list[str], Path | None]:
    """The words but `-cd DIR`, and DIR."""
    rest, config_dir, following = list[str](), None, iter(words)
    for word in following:
        name, _, attached = word.partition("=")
        if name in CONFIG_DIR:
            config_dir = Path(attached or value_of(word, following))
        else:
            rest.append(word)
    return rest, config_dir


def parse_show(words: list[str]) -> tuple[list[str], str, Path | None]:
    """`[SPLIT] key=value...` → overrides, the split, and the folder after -cd."""
    words, config_dir = without_config_dir(words)
    splits = [word for word in words if "=" not in word and not word.startswith("~")]
    for word in splits:
        if word not in SPLITS:
            raise UserError(f"show: {word} is no split{nearest(word, SPLITS)}; say {', '.join(SPLITS)}")
    if len(splits) > 1:
        raise UserError(f"show: one split at a time, not {' and '.join(splits)}")
    return [word for word in words if word not in splits], splits[0] if splits else "train", config_dir


def parse_judge(words: list[str]) -> tuple[Path, list[str], Path | None]:
    """`SWEEP key=value...` → the folder, the overrides, and the folder after -cd."""
    words, config_dir = without_config_dir(words)
    folders = [word for word in words if "=" not in word and not word.startswith(("-", "~"))]
    overrides = [word for word in words if word not in folders]
    if len(folders) != 1 or not overrides or any(word.startswith("-") for word in overrides):
        raise UserError("judge: needs a sweep and what changes, as in: prefsweep judge SWEEP scorer@judge=deberta-v3")
    return Path(folders[0]), overrides, config_dir


def parse_export(words: list[str]) -> tuple[Path, Path, bool]:
    wrong = [word for word in words if word.startswith("-") and word != "--merge"]
    if wrong:
        raise UserError(f"export: {wrong[0]} is no flag of it; there is --merge")
    folders = [Path(word) for word in words if word != "--merge"]
    if len(folders) != 2:
        raise UserError(
            "export: needs the folder of a run or a stage and a new one, as in: prefsweep export outputs/runs/NAME mine"
        )
    return folders[0], folders[1], "--merge" in words


def value_of(flag: str, words: Iterator[str]) -> str:
    value = next(words, None)
    if value is None:
        raise UserError(f"{flag}: needs a value")
    return value


def help_text() -> str:
    groups = "\n".join(group_help(folder) for folder in sorted(config_folder().iterdir()) if is_group(folder))
    commands = "\n".join(f"  {usage}" for usage in COMMANDS.values())
    return f"""prefsweep aligns small language models to preferences: one command a run, one more a grid.

Examples
  prefsweep                                        the embedded world: no network, no GPU, no account
  prefsweep method=dpo seed=2 stages.dpo.beta=.2   one run
  prefsweep runtime.dry_run=true method=sft        what would run, and what is built already
  prefsweep -m method=sft,dpo seed=1,2,3 jobs=2    a grid, two jobs at once; again, and only what is missing runs
  prefsweep experiment=demo                        a grid from a file
  prefsweep table multirun_sweeps/demo             its table

Commands
{commands}

Flags, anywhere on the line
  -m, --multirun           several values a key make a grid
  --cfg job [--resolve]    print the composed config and stop
  -cd, --config-dir DIR    a folder with YAML of your own, laid out like conf/
  -h, --help, --version
  -sc install=bash         tab completion: eval "$(prefsweep -sc install=bash)"

Groups: group=choice
{groups}
Everything else is key=value; `prefsweep --cfg job` shows every key, the files in conf/ say what moving it does."""


def is_group(folder: Path) -> bool:
    return folder.is_dir() and not folder.name.startswith(("_", "."))


def group_help(folder: Path) -> str:
    name = "scorer@judge, scorer@reward" if folder.name == "scorer" else folder.name
    if folder.name == "stage":
        return f"  stage\n      stages.<name>.<key>=value; the stages: {', '.join(choices(folder))}\n"
    lines = [f"      {first_comment(folder / f'{choice}.yaml')}" for choice in choices(folder)]
    return "\n".join([f"  {name}", *lines, ""])


def choices(folder: Path) -> list[str]:
    return sorted(file.stem for file in folder.glob("*.yaml") if not file.stem.startswith("_"))


def first_comment(file: Path) -> str:
    lines = (line for line in file.read_text().splitlines() if line.startswith("# ") and "@package" not in line)
    return next(lines, f"# {file.stem}").removeprefix("# ")
