"""The Hugging Face hub, asked as little as possible: what lies in its cache is never asked for, and a commit that the
config does not pin is asked for once.
"""

import dataclasses
import json
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from prefsweep.config.schema import HubDatasetConfig, HubScorerConfig, ModelConfig
from prefsweep.config.stages import EncoderConfig
from prefsweep.errors import UserError
from prefsweep.pipeline.files import write_json

COMMITS = "hub-commits.json"  # under runtime.outputs: repository → the commit it was at when it was first used
WEIGHTS = tuple(f"{name}{of}" for name in ("model.safetensors", "pytorch_model.bin") for of in ("", ".index.json"))


def hub_is_reachable() -> bool:
    """Asked first, because the hub's client waits through five retries, most of a minute, to find out."""
    from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        return False
    if getproxies():  # a connection of our own would go around the proxy
        return True
    address = urlsplit(ENDPOINT)
    try:
        socket.create_connection((address.hostname, address.port or 443), timeout=5).close()
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class Repository:
    """Where a section of the config is read from; `key` is what a person sets to have it read from elsewhere."""

    id: str
    revision: str | None
    kind: str
    key: str

    @property
    def name(self) -> str:
        """Models and datasets may share an id."""
        return self.id if self.kind == "dataset" else f"models/{self.id}"


def repository(section: Any, key: str = "") -> Repository | None:
    """None for what is read from a local folder or made from nothing. `key` is the section's own."""
    if getattr(section, "path", None) is not None or getattr(section, "id", None) is None:
        return None
    match section:
        case HubDatasetConfig():
            return Repository(section.id, section.revision, "dataset", "dataset.path")
        case ModelConfig(from_scratch=False):
            return Repository(str(section.id), section.revision, "model", "model.path")
        case HubScorerConfig(architecture=None):
            return Repository(str(section.id), section.revision, "model", f"{key}.path")
        case EncoderConfig(architecture=None):
            return Repository(str(section.id), section.revision, "model", f"{key}.path")
    return None


def pinned(section: Any, outputs: Path, resolve: bool) -> Any:
    """The dataset, model or scorer with the commit that it is read at: the config's, or the one it was first used at.

    Where neither is known it stays None, a plan's "not pinned"; with `resolve` the hub is asked, and the answer kept.
    """
    if not isinstance(section, HubDatasetConfig | ModelConfig | HubScorerConfig | EncoderConfig) or section.id is None:
        return section
    commit = commit_of(section.id, section.revision)
    if found := repository(section):
        commit = commit or remembered(outputs).get(found.name)
        if commit is None and resolve:
            commit = first_commit(found)
            write_json(outputs / COMMITS, {**remembered(outputs), found.name: commit})
    return dataclasses.replace(section, revision=commit)


def not_pinned(section: Any, outputs: Path) -> str | None:
    """What a plan says of a section whose rows or weights the config alone does not name; None where it does."""
    found = repository(section)
    if found is None:
        return None
    if found.revision is None:
        return "not pinned: its commit is asked for at first use"
    if remembered(outputs).get(found.name) == found.revision:
        return f"not pinned: at {found.revision}, the commit of its first use here"
    return None


def commit_of(id: str, commit: str | None) -> str | None:
    """`commit`, unless it says that it is of another repository: `id@commit`."""
    whose, _, hash = (commit or "").rpartition("@")
    return hash if hash and whose in ("", id) else None


def remembered(outputs: Path) -> dict[str, str]:
    try:
        found = json.loads((outputs / COMMITS).read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{outputs / COMMITS}: cannot be read ({error}); mend or remove it") from error
    return {str(key): str(value) for key, value in found.items()}


def first_commit(wanted: Repository) -> str:
    """The newest of the hub; without network, the one in the cache."""
    from huggingface_hub import repo_info, snapshot_download

    try:
        if hub_is_reachable():
            return str(asked(wanted, lambda: repo_info(wanted.id, repo_type=wanted.kind).sha))
        return Path(snapshot_download(wanted.id, repo_type=wanted.kind, local_files_only=True)).name
    except FileNotFoundError as error:
        raise unreachable(wanted) from error


def check_models(wanted: Iterable[Repository]) -> None:
    """Raise a `UserError` at the first model that is neither in the cache nor to be had."""
    from huggingface_hub import repo_info

    for each in sorted(set(wanted), key=lambda repository: repository.id):
        if is_cached(each):
            continue
        if not hub_is_reachable():
            raise unreachable(each)
        asked(each, partial(repo_info, each.id, revision=each.revision, repo_type=each.kind))


def is_cached(model: Repository) -> bool:
    from huggingface_hub import try_to_load_from_cache

    def lies_there(name: str) -> bool:
        return isinstance(try_to_load_from_cache(model.id, name, revision=model.revision), str)

    return lies_there("config.json") and any(map(lies_there, WEIGHTS))


def snapshot(id: str, commit: str | None, patterns: list[str], complete: Callable[[Path], bool]) -> Path:
    """A folder with the files of a dataset's repository: the cache's, where it is `complete`, or the hub's."""
    from huggingface_hub import snapshot_download

    where: dict[str, Any] = {"repo_id": id, "repo_type": "dataset", "revision": commit, "allow_patterns": patterns}
    try:
        folder = Path(snapshot_download(**where, local_files_only=True))
        if complete(folder):
            return folder
    except FileNotFoundError:
        pass
    wanted = Repository(id, commit, "dataset", "dataset.path")
    if not hub_is_reachable():
        raise unreachable(wanted)
    return Path(asked(wanted, lambda: snapshot_download(**where)))


def unreachable(wanted: Repository) -> UserError:
    pin = f" --revision {wanted.revision}" if wanted.revision else ""
    kind = "" if wanted.kind == "model" else f"--repo-type {wanted.kind} "
    return UserError(
        f"{wanted.id}: not in the local cache and the hub cannot be reached; run `hf download {kind}{wanted.id}{pin}` "
        f"on a machine with network, or say {wanted.key}=FOLDER"
    )


def asked(wanted: Repository, question: Callable[[], Any]) -> Any:
    """What the hub answers; what it refuses, in one line."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return question()
    except GatedRepoError as error:
        where = wanted.id if wanted.kind == "model" else f"{wanted.kind}s/{wanted.id}"
        raise UserError(
            f"{wanted.id}: is gated; accept its conditions at https://huggingface.co/{where} and run `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        key = f"{wanted.key.removesuffix('path')}id={wanted.id}"
        raise UserError(f"{key}: the hub has no such {wanted.kind}, or shows it to others (`hf auth login`)") from error
    except RevisionNotFoundError as error:
        raise UserError(f"{wanted.id}: has no such commit on the hub, {wanted.revision}") from error
    except (HfHubHTTPError, OSError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{wanted.id}: the hub does not give it ({said}); or say {wanted.key}=FOLDER") from error
