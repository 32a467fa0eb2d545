"""Models and datasets of the hub, by the names that `model=` and `dataset=` know, into the hub's cache.

The hub's own client shows progress, goes on with what was broken off, and checks what it has.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefsweep import config_folder
from prefsweep.cli.groups import choices, first_comment
from prefsweep.config.compose import compose, composing
from prefsweep.config.schema import HubConfig, HubDatasetConfig
from prefsweep.data.layout import files
from prefsweep.errors import UserError, nearest
from prefsweep.hub import call_hub, commit_of, hub_is_reachable, is_cached, repository, unreachable
from prefsweep.pipeline.imports import import_object

GROUPS = ("model", "dataset")
# Of a model its weights in one form, its config and its tokenizer; none of the exports that lie in folders.
FILES = ("*.json", "*.txt", "*.model", "*.jinja")
WEIGHTS = ("*.safetensors", "*.bin")


def group_of(name: str) -> str:
    """Return `model` or `dataset`; raise a UserError for what is neither."""
    names = {choice: group for group in GROUPS for choice in choices(config_folder() / group)}
    if name not in names:
        raise UserError(f"{name}: no model or dataset is called so{nearest(name, names)}; `prefsweep fetch --help`")
    return names[name]


def install(name: str) -> None:
    """Download the repository of a model or dataset as far as it is read, and print where it is."""
    group = group_of(name)
    print(first_comment(config_folder() / group / f"{name}.yaml"))
    with composing():
        section = getattr(compose([f"{group}={name}", "method=base"]), group)
    if isinstance(section, HubConfig):
        section = replace(section, revision=commit_of(section.id or "", section.revision))
    if repository(section) is None:
        raise UserError(f"{group}={name}: is made here, so there is nothing to fetch")
    folder = dataset_folder(section) if isinstance(section, HubDatasetConfig) else model_folder(section)
    print(f"{name}: in {folder}; set {group}={name}")


def dataset_folder(dataset: HubDatasetConfig) -> Path:
    names = sys.modules[import_object(dataset._target_).__module__].file_names(dataset)
    return next(iter(files(dataset, names).values()))[0].parent


def model_folder(model: Any) -> Path:
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    repo = repository(model)
    assert repo is not None
    options: dict[str, Any] = {"repo_id": repo.id, "revision": repo.revision, "ignore_patterns": ["*/*"]}
    if is_cached(repo):
        return Path(hf_hub_download(repo.id, "config.json", revision=repo.revision, local_files_only=True)).parent
    if not hub_is_reachable():
        raise unreachable(repo)
    there = call_hub(repo, lambda: HfApi().list_repo_files(repo.id, revision=repo.revision))
    weights = next((kind for kind in WEIGHTS if any(Path(file).match(kind) and "/" not in file for file in there)), "")
    return Path(call_hub(repo, lambda: snapshot_download(**options, allow_patterns=[*FILES, weights])))
