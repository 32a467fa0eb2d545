"""Access to the Hugging Face hub with as few requests as possible: none for what is in the local cache, and one for the
commit of a repository that the config does not pin.
"""

import contextlib
import dataclasses
import json
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from prefsweep.config.schema import HubConfig, HubDatasetConfig, ModelConfig, WeightsConfig
from prefsweep.errors import UserError
from prefsweep.pipeline.files import write_json

INDEX = "package-index"  # the owner, in the cache, of what `prefsweep fetch` takes from packages; no user of the hub
COMMITS = "hub-commits.json"  # under runtime.outputs: repository → its commit at first use
WEIGHTS = tuple(f"{name}{end}" for name in ("model.safetensors", "pytorch_model.bin") for end in ("", ".index.json"))


def hub_is_reachable() -> bool:
    """Return whether the hub accepts a connection; its client would find out after most of a minute of retries."""
    from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        return False
    if getproxies():  # a direct connection would bypass the proxy
        return True
    address = urlsplit(ENDPOINT)
    with contextlib.suppress(OSError), socket.create_connection((address.hostname, address.port or 443), timeout=5):
        return True
    return False


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Keep the hub's client from the network: transformers asks for adapters of a model that it shall load locally."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@dataclass(frozen=True)
class Repository:
    """The repository that a section of the config is read from; setting `key` has it read from a folder instead."""

    id: str
    revision: str | None
    kind: str
    key: str

    @property
    def name(self) -> str:
        """A name that is unique although models and datasets may share an id."""
        return self.id if self.kind == "dataset" else f"models/{self.id}"


def repository(section: Any, key: str = "") -> Repository | None:
    """Return the repository of the section at `key`; None where it is a local folder or is initialised from scratch."""
    if not isinstance(section, HubConfig) or section.path is not None or section.id is None:
        return None
    if isinstance(section, HubDatasetConfig):
        return Repository(section.id, section.revision, "dataset", "dataset.path")
    if isinstance(section, ModelConfig):
        return None if section.from_scratch else Repository(section.id, section.revision, "model", "model.path")
    if isinstance(section, WeightsConfig) and section.architecture is not None:
        return None
    return Repository(section.id, section.revision, "model", f"{key}.path")


def pinned(section: Any, outputs: Path, resolve: bool) -> Any:
    """Return the section with the commit that it is read at: that of the config, or that of its first use.

    Where neither is known it stays None, which a plan shows as "not pinned"; with `resolve` it is looked up and stored.
    """
    if not isinstance(section, HubConfig) or section.id is None:
        return section
    commit = commit_of(section.id, section.revision)
    if repo := repository(section):
        commit = commit or first_use_commits(outputs).get(repo.name)
        if commit is None and resolve:
            commit = current_commit(repo)
            write_json(outputs / COMMITS, {**first_use_commits(outputs), repo.name: commit})
    return dataclasses.replace(section, revision=commit)


def not_pinned(section: Any, outputs: Path) -> str | None:
    """Return what a plan shows for a section whose commit the config does not pin; None where it does."""
    repo = repository(section)
    if repo is None:
        return None
    if repo.revision is None:
        return "not pinned: its commit is looked up at first use"
    if first_use_commits(outputs).get(repo.name) == repo.revision:
        return f"not pinned: at {repo.revision}, the commit of its first use here"
    return None


def commit_of(id: str, commit: str | None) -> str | None:
    """Return the hash of `commit` or `id@commit`; None where that is the id of another repository."""
    owner, _, hash = (commit or "").rpartition("@")
    return hash if hash and owner in ("", id) else None


def first_use_commits(outputs: Path) -> dict[str, str]:
    """Return the commits at which repositories that the config does not pin were first used, by `Repository.name`."""
    try:
        commits = json.loads((outputs / COMMITS).read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{outputs / COMMITS}: cannot be read ({error}); repair or delete it") from error
    return {str(key): str(value) for key, value in commits.items()}


def current_commit(repo: Repository) -> str:
    """Return the newest commit on the hub; without network, the one in the local cache."""
    from huggingface_hub import repo_info, snapshot_download

    try:
        if hub_is_reachable():
            return str(call_hub(repo, lambda: repo_info(repo.id, repo_type=repo.kind).sha))
        return Path(snapshot_download(repo.id, repo_type=repo.kind, local_files_only=True)).name
    except FileNotFoundError as error:
        raise unreachable(repo) from error


def check_models(repos: Iterable[Repository]) -> None:
    """Raise a UserError for the first model that is neither in the local cache nor accessible on the hub."""
    from huggingface_hub import repo_info

    for repo in sorted(set(repos), key=lambda repo: repo.id):
        if is_cached(repo):
            continue
        if repo.id.startswith(INDEX) or not hub_is_reachable():
            raise unreachable(repo)
        call_hub(repo, partial(repo_info, repo.id, revision=repo.revision, repo_type=repo.kind))


def is_cached(model: Repository) -> bool:
    """Return whether the local cache holds the config and weights of a model."""
    from huggingface_hub import try_to_load_from_cache

    def has_file(name: str) -> bool:
        return isinstance(try_to_load_from_cache(model.id, name, revision=model.revision), str)

    return has_file("config.json") and any(map(has_file, WEIGHTS))


def snapshot(id: str, commit: str | None, patterns: list[str], complete: Callable[[Path], bool]) -> Path:
    """Return a folder with the files of a dataset that match `patterns`, from the cache where that is `complete`."""
    from huggingface_hub import snapshot_download

    options: dict[str, Any] = {"repo_id": id, "repo_type": "dataset", "revision": commit, "allow_patterns": patterns}
    with contextlib.suppress(FileNotFoundError):
        folder = Path(snapshot_download(**options, local_files_only=True))
        if complete(folder):
            return folder
    repo = Repository(id, commit, "dataset", "dataset.path")
    if repo.id.startswith(INDEX) or not hub_is_reachable():
        raise unreachable(repo)
    return Path(call_hub(repo, lambda: snapshot_download(**options)))


def unreachable(repo: Repository) -> UserError:
    """Return the error for a repository that is neither cached nor downloadable, with the command to fetch it."""
    if repo.id.startswith(f"{INDEX}/"):
        return UserError(f"{repo.id}: not in the local cache; `prefsweep fetch --help` lists what to fetch")
    pin = f" --revision {repo.revision}" if repo.revision else ""
    kind = "" if repo.kind == "model" else f"--repo-type {repo.kind} "
    return UserError(
        f"{repo.id}: not in the local cache and the hub cannot be reached; run `hf download {kind}{repo.id}{pin}` "
        f"on a machine with network, or set {repo.key}=FOLDER"
    )


def call_hub(repo: Repository, request: Callable[[], Any]) -> Any:
    """Return what a request to the hub returns; turn its errors into a UserError of one line."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return request()
    except GatedRepoError as error:
        page = repo.id if repo.kind == "model" else f"{repo.kind}s/{repo.id}"
        raise UserError(
            f"{repo.id}: is gated; accept its conditions at https://huggingface.co/{page} and run `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        key = f"{repo.key.removesuffix('path')}id={repo.id}"
        raise UserError(f"{key}: the hub has no such {repo.kind}, or it is private (`hf auth login`)") from error
    except RevisionNotFoundError as error:
        raise UserError(f"{repo.id}: has no such commit on the hub, {repo.revision}") from error
    except (HfHubHTTPError, OSError) as error:
        message = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{repo.id}: the hub refuses it ({message}); or set {repo.key}=FOLDER") from error
