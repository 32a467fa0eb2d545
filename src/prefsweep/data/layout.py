"""The paths of a dataset's files: in a local folder laid out like the hub's repository, or in the hub's cache.

A loader names its files without their endings, as in `harmless-base/train`; `*` stands for the only file of rows.
"""

import re
from pathlib import Path

from prefsweep.config.schema import FileDatasetConfig, HubDatasetConfig
from prefsweep.data.files import READERS, format_of
from prefsweep.errors import UserError
from prefsweep.hub import commit_of, snapshot
from prefsweep.pipeline.files import files_under

ANY = "*"


def files(dataset: FileDatasetConfig, names: list[str]) -> dict[str, list[Path]]:
    """Return the paths of each name, in order; download from the hub what is neither local nor cached."""
    if dataset.path is not None:
        return local_files(Path(dataset.path), names, f"dataset.path={dataset.path}")
    assert isinstance(dataset, HubDatasetConfig)
    patterns = [name + (ending if name == ANY else f"*{ending}") for name in names for ending in READERS]
    commit = commit_of(dataset.id, dataset.revision)
    folder = snapshot(dataset.id, commit, patterns, lambda folder: all(matches(folder, name) for name in names))
    return local_files(folder, names, dataset.id)


def local_files(folder: Path, names: list[str], source: str) -> dict[str, list[Path]]:
    """Return the paths of each name in a folder; `source` names the folder in errors.

    The subfolder in which the hub keeps a file may be missing where that leaves no doubt.
    """
    if folder.is_file():
        if names != [ANY]:
            raise UserError(f"{source}: is a file; set the folder that holds {' and '.join(names)}")
        return {ANY: [folder]}
    last_parts = [name.rpartition("/")[2] for name in names]
    located = {}
    for name, last in zip(names, last_parts, strict=True):
        paths = matches(folder, name) or (matches(folder, last) if last_parts.count(last) == 1 else [])
        if not paths:
            wanted = "file of rows" if name == ANY else name
            raise UserError(f"{source}: holds no {wanted} ({', '.join(READERS)})")
        located[name] = one_file_or_its_shards(paths, source)
    return located


def matches(folder: Path, name: str) -> list[Path]:
    """Return the files of that name, whole or in numbered shards, in order."""
    if name == ANY:
        return [file for file in files_under(folder) if format_of(file)]
    path = folder / name
    pattern = re.compile(re.escape(path.name) + r"(-\d+-of-\d+)?\.")
    siblings = path.parent.iterdir() if path.parent.is_dir() else iter(())
    return sorted(file for file in siblings if pattern.match(file.name) and file.is_file() and format_of(file))


def one_file_or_its_shards(paths: list[Path], source: str) -> list[Path]:
    """Return `paths` if they are one file or all the shards of one; anything else could be read in several ways."""
    if len(paths) == 1 and "-of-" not in paths[0].name:
        return paths
    shards = [re.search(r"(.*)-(\d+)-of-(\d+)\.", file.name) for file in paths]
    if not all(shards) or len({(shard[1], shard[3]) for shard in shards if shard}) > 1:
        raise UserError(f"{source}: holds both {paths[0].name} and {paths[1].name}; leave one")
    count = int(shards[0][3]) if shards[0] else 0
    if len(paths) != count:
        raise UserError(f"{source}: holds {len(paths)} of the {count} files of {paths[0].name}")
    return paths
