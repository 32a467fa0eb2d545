"""The Hugging Face hub, asked as little as possible: what lies in its cache is never asked for, and a commit that the
config does not pin is asked for once.
"""

import dataclasses
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from prefsweep.config import HubDatasetConfig
from prefsweep.errors import UserError
from prefsweep.pipeline.files import write_json

COMMITS = "hub-commits.json"  # under runtime.outputs: repository → the commit it was at when it was first used


def hub_answers() -> bool:
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


def pinned(dataset: Any, outputs: Path, resolve: bool) -> Any:
    """The dataset with the commit that it is read at: the config's, or the one it was first used at.

    Where neither is known it stays None, a plan's "not pinned"; with `resolve` the hub is asked, and the answer kept.
    """
    if not isinstance(dataset, HubDatasetConfig) or dataset.path is not None:
        return dataset
    commit = commit_said(dataset.id, dataset.commit) or remembered(outputs).get(dataset.id)
    if commit is None and resolve:
        commit = first_commit(dataset.id)
        write_json(outputs / COMMITS, {**remembered(outputs), dataset.id: commit})
    return dataclasses.replace(dataset, commit=commit)


def not_pinned(dataset: Any, outputs: Path) -> str | None:
    """What a plan says of a dataset whose rows the config alone does not name; None where it does."""
    if not isinstance(dataset, HubDatasetConfig) or dataset.path is not None:
        return None
    if dataset.commit is None:
        return "not pinned: its commit is asked for at first use"
    if remembered(outputs).get(dataset.id) == dataset.commit:
        return f"not pinned: at {dataset.commit}, the commit of its first use here"
    return None


def commit_said(id: str, commit: str | None) -> str | None:
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


def first_commit(id: str) -> str:
    """The newest of the hub; without network, the one in the cache."""
    from huggingface_hub import dataset_info, snapshot_download

    try:
        if hub_answers():
            return str(asked(id, lambda: dataset_info(id).sha))
        return Path(snapshot_download(id, repo_type="dataset", local_files_only=True)).name
    except FileNotFoundError as error:
        raise unreachable(id, None) from error


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
    if not hub_answers():
        raise unreachable(id, commit)
    return Path(asked(id, lambda: snapshot_download(**where)))


def unreachable(id: str, commit: str | None) -> UserError:
    pin = f" --revision {commit}" if commit else ""
    return UserError(
        f"{id}: not in the local cache and the hub cannot be reached; run `hf download --repo-type dataset {id}{pin}` "
        "on a machine with network, or say dataset.path=FOLDER"
    )


def asked(id: str, question: Callable[[], Any]) -> Any:
    """What the hub answers; what it refuses, in one line."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return question()
    except GatedRepoError as error:
        page = f"https://huggingface.co/datasets/{id}"
        raise UserError(f"{id}: is gated; accept its conditions at {page} and run `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"dataset.id={id}: the hub has no such dataset, or shows it to others (`hf auth login`)"
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(f"dataset.commit: {id} has no such commit on the hub") from error
    except (HfHubHTTPError, OSError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{id}: the hub does not give it ({said}); or say dataset.path=FOLDER") from error
