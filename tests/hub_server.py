"""A hub of our own on this machine: a folder of datasets, served in the hub's own words to the hub's own client."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

PINNED = {"openai-community/gpt2": "607a30d783dfa663caf39e06633721c8d4cfcd7e"}


@contextmanager
def hub(
    datasets: dict[str, Path], gated: tuple[str, ...] = (), models: dict[str, Path] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Its address, and the paths that it is asked for. Each repository has one commit: the hash of its name."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            requests.append(path)
            listed = [("datasets", "datasets/", *item) for item in datasets.items()]
            for kind, prefix, name, folder in [*listed, *(("models", "", *item) for item in (models or {}).items())]:
                if path in (f"/api/{kind}/{name}", f"/api/{kind}/{name}/revision/main"):
                    return self.reply(json.dumps({"id": name, "sha": commit(name), "siblings": []}).encode())
                if name in gated and name in path:
                    return self.reply(b"", 403, {"X-Error-Code": "GatedRepo"})
                if path == f"/api/{kind}/{name}/tree/{commit(name)}":
                    return self.reply(json.dumps(tree(folder)).encode())
                start = f"/{prefix}{name}/resolve/{commit(name)}/"
                if path.startswith(start):
                    content = (folder / path.removeprefix(start)).read_bytes()
                    return self.reply(content, 200, {"ETag": f'"{oid(content)}"', "X-Repo-Commit": commit(name)})
                if name in path:
                    return self.reply(b"", 404, {"X-Error-Code": "RevisionNotFound"})
            self.reply(b"", 404, {"X-Error-Code": "RepoNotFound"})

        do_HEAD = do_GET  # noqa: N815

        def reply(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()


def commit(name: str) -> str:
    """Return the commit of a repository: of one that a test reads by its preset, the pinned one."""
    return PINNED.get(name) or hashlib.sha1(name.encode()).hexdigest()


def oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def tree(folder: Path) -> list[dict[str, object]]:
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return [
        {
            "type": "file",
            "path": str(file.relative_to(folder)),
            "size": file.stat().st_size,
            "oid": oid(file.read_bytes()),
        }
        for file in files
    ]
