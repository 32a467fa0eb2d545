"""Tab completion: Hydra's own over conf/, and before it the commands and their flags."""

import contextlib
import io
import os
import sys

import hydra

from prefsweep import config_folder
from prefsweep.cli.parser import COMMANDS, Parser, index_of_command
from prefsweep.config import schema
from prefsweep.config.hydra_errors import known_keys
from prefsweep.config.stage import load_stages

WITH_OVERRIDES = ("rescore", "show", "score")  # the shell itself completes the folders of the other commands


def complete(request: str) -> str:
    """Return the script that installs completion, or for `query=SHELL` the words that fit the line in COMP_LINE."""
    if not request.startswith("query"):
        return ask_hydra(request)
    return " ".join(candidates(os.environ.get("COMP_LINE", ""), request))


def candidates(line: str, request: str) -> list[str]:
    words = line.split()[1:]
    word = "" if line.endswith(" ") or not words else words.pop()
    index = index_of_command(words)
    command = "" if index is None else words[index]
    if word.startswith("-"):
        return [flag for flag in Parser(command).flags if flag.startswith(word)]
    if command and command not in WITH_OVERRIDES:
        return []
    if word.startswith("stages."):
        return stage_keys(word)
    overrides = [other for other in words if "=" in other or other in ("-m", "--multirun")]
    os.environ["COMP_LINE"] = " ".join(["prefsweep", *overrides, word])
    # Files that only others are made of begin with an underscore.
    choices = [choice for choice in ask_hydra(request).split() if not ("=_" in choice or choice.startswith("hydra"))]
    return choices if words else [*(name for name in COMMANDS if name.startswith(word)), *choices]


def stage_keys(prefix: str) -> list[str]:
    """Return the settings of all stages; Hydra sees none, since stages are composed from the method's graph."""
    load_stages()
    keys = known_keys()
    parents = {key.rpartition(".")[0] for key in keys}
    return [f"{key}=" for key in sorted(keys - parents) if key.startswith(prefix)]


def ask_hydra(request: str) -> str:
    schema.register()
    sys.argv = [sys.argv[0], "-sc", request]
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        hydra.main(config_path=str(config_folder()), config_name="config", version_base="1.3")(lambda _: None)()
    return output.getvalue()
