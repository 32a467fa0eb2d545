"""Where a dataset's files lie: in a local folder laid out like the hub's repository, or in the hub's cache.

A loader names its files without their endings, as in `harmless-base/train`; `*` is the one file that there is.
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
    """The files of each name, in order. Fetched from the hub where they are neither local nor cached."""
    if dataset.path is not None:
        return local_files(Path(dataset.path), names, f"dataset.path={dataset.path}")
    assert isinstance(dataset, HubDatasetConfig)
    patterns = [name + (ending if name == ANY else f"*{ending}") for name in names for ending in READERS]
    commit = commit_of(dataset.id, dataset.revision)
    folder = snapshot(dataset.id, commit, patterns, lambda folder: all(found(folder, name) for name in names))
    return local_files(folder, names, dataset.id)


def local_files(folder: Path, names: list[str], of: str) -> dict[str, list[Path]]:
    """With or without the folder in which the hub keeps them, where that leaves no doubt; `of` is for complaints."""
    if folder.is_file():
        if names != [ANY]:
            raise UserError(f"{of}: is a file; say the folder that holds {' and '.join(names)}")
        return {ANY: [folder]}
    bare = [name.rpartition("/")[2] for name in names]
    located = {}
    for name, last in zip(names, bare, strict=True):
        these = found(folder, name) or (found(folder, last) if bare.count(last) == 1 else [])
        if not these:
            wanted = "file of rows" if name == ANY else name
            raise UserError(f"{of}: holds no {wanted} ({', '.join(READERS)})")
        located[name] = one_set(these, of)
    return located


def found(folder: Path, name: str) -> list[Path]:
    """Files of that name, whole or in numbered shards."""
    if name == ANY:
        return [file for file in files_under(folder) if format_of(file)]
    place = folder / name
    stem = re.compile(re.escape(place.name) + r"(-\d+-of-\d+)?\.")
    inner = place.parent.iterdir() if place.parent.is_dir() else iter(())
    return sorted(file for file in inner if stem.match(file.name) and file.is_file() and format_of(file))


def one_set(these: list[Path], of: str) -> list[Path]:
    """One file, or all the shards of one; anything else could be read in more than one way."""
    if len(these) == 1 and "-of-" not in these[0].name:
        return these
    shards = [re.search(r"(.*)-(\d+)-of-(\d+)\.", file.name) for file in these]
    if not all(shards) or len({(shard[1], shard[3]) for shard in shards if shard}) > 1:
        raise UserError(f"{of}: holds both {these[0].name} and {these[1].name}; leave one")
    wanted = int(shards[0][3]) if shards[0] else 0
    if len(these) != wanted:
        raise UserError(f"{of}: holds {len(these)} of the {wanted} files of {these[0].name}")
    return these
