"""The config groups and their choices, as the help lists them: each choice with the first comment of its file."""

from pathlib import Path

from prefsweep import config_folder


def describe_groups() -> str:
    folders = sorted(config_folder().glob("[!_.]*/"))
    return "\n".join(
        [
            "groups, as group=choice:",
            *map(describe, folders),
            "Everything else is key=value: `prefsweep --cfg job` prints every key, the files in conf/ explain them.\n",
        ]
    )


def describe(group: Path) -> str:
    if group.name == "stage":
        return f"  stage\n      stages.<name>.<key>=value; the stages: {', '.join(choices(group))}\n"
    name = "scorer@judge, scorer@reward" if group.name == "scorer" else group.name
    lines = [f"      {first_comment(group / f'{choice}.yaml')}" for choice in choices(group)]
    return "\n".join([f"  {name}", *lines, ""])


def choices(group: Path) -> list[str]:
    return sorted(file.stem for file in group.glob("[!_]*.yaml"))


def first_comment(file: Path) -> str:
    lines = (line for line in file.read_text().splitlines() if line.startswith("# ") and "@package" not in line)
    return next(lines, f"# {file.stem}").removeprefix("# ")
