"""What the tests share: no network, one thread, and tiny models of real architectures in the hub's own layout."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # the tests are of a CPU, and fork; set it for those marked gpu
for key in ("WANDB_API_KEY", "WANDB_RUN_ID"):
    os.environ.pop(key, None)

LOOPBACK = ("127.", "::1", "localhost")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may leave the machine: a socket that tries is an error, not a wait."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and not str(address[0]).startswith(LOOPBACK):
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A byte-level BPE tokenizer like GPT-2's, trained on the world's reviews."""
    from prefsweep.data.datasets.synthetic import reviews
    from prefsweep.models.tokenizers import train_tokenizer

    return train_tokenizer(reviews(400, seed=9, coherence=0.74), 600, 96)


@pytest.fixture(scope="session")
def model_folders(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Freshly initialised GPT-2 and OPT, small, saved as the hub saves them; OPT narrower inside like opt-350m."""
    import torch
    from transformers import AutoModelForCausalLM

    from architectures import architecture

    torch.manual_seed(0)
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    shapes = {
        "gpt2": architecture("gpt2", len(tokenizer), initializer_range=0.2, **special),
        "opt": architecture("opt", len(tokenizer), ffn_dim=64, init_std=0.2, **special),
    }
    folders = {}
    for name, shape in shapes.items():
        folders[name] = tmp_path_factory.mktemp(name)
        AutoModelForCausalLM.from_config(shape).save_pretrained(folders[name])
        tokenizer.save_pretrained(folders[name])
    return folders


@pytest.fixture(autouse=True)
def one_thread(request: pytest.FixtureRequest) -> Iterator[None]:
    """Numbers are bit-identical at equal thread counts; and two tests' threads would only wait for each other."""
    if "torch" in __import__("sys").modules:
        import torch

        torch.set_num_threads(1)
    yield


@pytest.fixture
def composed() -> Callable[..., Any]:
    """A checked config from words, as on the command line, with a small world; without a method it has every stage."""
    from prefsweep.config.compose import compose, composing

    def make(*words: str) -> Any:
        chosen = [word for word in words if word.startswith(("method=", "experiment="))]
        method = [] if chosen else ["method=all_stages"]
        with composing(CONF):
            usual = [*method, *SMALL_WORLD, "runtime=cpu", "tracking=off", "runtime.progress=false"]
            return compose([*usual, *words], CONF)

    return make


CONF = Path(__file__).parent / "conf"
SMALL_WORLD = ["dataset.size=48", "dataset.validation=16", "dataset.test=16", "dataset.pretraining=300"]


@pytest.fixture
def ppo_config(composed: Callable[..., Any]) -> Callable[..., Any]:
    """A short PPO on the tiny policies of `ppo_toy`."""
    from ppo_toy import short

    stage = composed().stages.ppo
    return lambda **changes: short(stage, **changes)


@pytest.fixture
def new_context(tmp_path: Path, composed: Callable[..., Any]) -> Callable[..., Any]:
    """The context of a stage that is built from nothing, or goes on in the folder `name`."""
    from prefsweep.pipeline.history import History
    from prefsweep.pipeline.stage import Context

    def make(name: str = "work", **runtime: Any) -> Context:
        settings = composed().runtime
        settings.outputs = str(tmp_path / "outputs")
        for key, value in runtime.items():
            setattr(settings, key, value)
        checkpoints = tmp_path / name / "checkpoints"
        checkpoints.mkdir(parents=True, exist_ok=True)
        return Context(settings, checkpoints, History(tmp_path / name / "history.jsonl"))

    return make
