"""Files of a Python package index: located by its simple API, downloaded with resumption, checked by their sha256."""

import hashlib
import os
import re
from html import unescape
from http.client import HTTPException
from pathlib import Path
from typing import IO
from urllib.error import HTTPError
from urllib.parse import urljoin
from urllib.request import Request, urlopen

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TransferSpeedColumn

from prefsweep.errors import UserError

PUBLIC = "https://pypi.org/simple"
ATTEMPTS = 5  # without a byte between them; a connection that breaks later goes on where it broke
BLOCK = 1 << 20
TIMEOUT = 30


def index_url() -> str:
    """Return the address of the index that pip uses too."""
    return os.environ.get("PIP_INDEX_URL", PUBLIC).rstrip("/")


def url_of(package: str, file: str) -> str:
    """Return the address of a file of a package."""
    page = f"{index_url()}/{package}/"
    with urlopen(Request(page, headers={"Accept": "text/html"}), timeout=TIMEOUT) as reply:
        links = re.findall(r"""href=["']([^"']+)["']""", reply.read().decode())
    for link in map(unescape, links):
        if link.partition("#")[0].rpartition("/")[2] == file:
            return urljoin(page, link).partition("#")[0]
    raise UserError(f"{package}: the package index {index_url()} has no {file}")


def download(url: str, path: Path, sha256: str) -> None:
    """Download a file that has this sha256. What an earlier call left of it in `path`.part is continued."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with progress() as bar, part.open("ab") as file:
        task, idle = bar.add_task(path.name, total=None), 0
        while True:
            size = file.tell()
            try:
                if receive(url, file, bar, task):
                    break
            except HTTPError as error:
                if error.code != 416:  # nothing is left to send
                    raise
                break
            except (OSError, HTTPException):
                idle = 0 if file.tell() > size else idle + 1
                if idle == ATTEMPTS:
                    raise
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256:
        part.unlink()
        raise UserError(f"{url}: its sha256 is {digest}, not {sha256}; it is not used")
    part.replace(path)


def receive(url: str, file: IO[bytes], bar: Progress, task: TaskID) -> bool:
    """Append what the file lacks, and return whether that was all; a server without ranges sends the whole again."""
    size = file.tell()
    with urlopen(Request(url, headers={"Range": f"bytes={size}-"} if size else {}), timeout=TIMEOUT) as reply:
        if reply.status != 206:
            file.truncate(size := 0)
        length = reply.headers.get("Content-Length")
        total = size + int(length) if length else None
        bar.update(task, total=total, completed=size)
        while block := reply.read(BLOCK):
            file.write(block)
            bar.update(task, advance=len(block))
    file.flush()
    return total is None or file.tell() >= total


def progress() -> Progress:
    return Progress(
        "{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=Console(stderr=True)
    )
