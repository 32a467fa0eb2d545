"""A processor that is slower in bf16 is named, in one line."""

import logging

import pytest
import torch

from prefsweep.models import precision


def test_only_a_slower_bf16_is_worth_a_line() -> None:
    assert "3.0 times slower" in precision.line_of(bf16=0.3, fp32=0.1)
    assert precision.line_of(bf16=0.1, fp32=0.3) == precision.line_of(bf16=0.102, fp32=0.1) == ""


def test_nothing_is_timed_unless_a_stage_wants_bf16_on_a_cpu(caplog: pytest.LogCaptureFixture) -> None:
    precision.compare.cache_clear()
    precision.check_bf16("fp32", torch.device("cpu"))
    precision.check_bf16("bf16", torch.device("cuda"))
    assert precision.compare.cache_info().misses == 0
    with caplog.at_level(logging.WARNING):
        precision.check_bf16("bf16", torch.device("cpu"))
        precision.check_bf16("bf16", torch.device("cpu"))
    assert precision.compare.cache_info().misses == 1
    assert len(caplog.records) <= 1
