"""One GPU a job, chosen by masking."""

import os
from pathlib import Path

import pytest

from prefsweep.sweep.devices import MASK, gpus, least_used, use_gpu


def pretend(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver's command that prints what it would on such a machine."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv(MASK, raising=False)


def test_the_driver_lists_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(tmp_path, "printf 'GPU-a\\nGPU-b\\n'", monkeypatch)
    assert gpus() == ["GPU-a", "GPU-b"]


def test_a_driver_that_fails_lists_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(tmp_path, "echo NVIDIA-SMI has failed; exit 9", monkeypatch)
    assert gpus() == []


def test_what_is_masked_already_stays_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MASK, "3,5")
    assert gpus() == ["3", "5"]
    monkeypatch.setenv(MASK, "")
    assert gpus() == []


def test_jobs_spread_over_them_and_share_when_there_are_more() -> None:
    running: list[str | None] = []
    for _ in range(5):
        running.append(least_used(["a", "b"], running))
    assert running == ["a", "b", "a", "b", "a"]
    running.remove("b")
    assert least_used(["a", "b"], running) == "b"
    assert least_used([], running) is None


def test_a_job_sees_its_own_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MASK, "0,1")
    use_gpu("1")
    assert os.environ[MASK] == "1"
    use_gpu(None)
    assert os.environ[MASK] == "1"
