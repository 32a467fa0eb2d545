"""Scorers: texts in, scores out. A reward or a judge; which one it is, the method says."""

from importlib import import_module
from pathlib import Path
from typing import Protocol

import torch

from prefsweep.config import ScorerConfig
from prefsweep.data import synthetic


class Scorer(Protocol):
    def score(self, prompts: list[str], answers: list[str]) -> dict[str, list[float]]:
        """One list a measure, `score` among them: higher is better. Others are reported beside it."""
        ...


def load_scorer(config: ScorerConfig, device: torch.device, trained: Path | None = None) -> Scorer:
    """`trained` is the folder of the stage that made the scorer, where one did."""
    module, _, name = config._target_.rpartition(".")
    scorer: Scorer = getattr(import_module(module), name)(config)
    return scorer


class Oracle:
    """The true reward of the synthetic world, and the share of sentences that are well-formed."""

    def __init__(self, config: ScorerConfig):
        pass

    def score(self, prompts: list[str], answers: list[str]) -> dict[str, list[float]]:
        texts = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        return {
            "score": [synthetic.true_reward(text) for text in texts],
            "well_formed": [synthetic.well_formed_share(text) for text in texts],
        }
