"""Scorers: texts in, scores out. A reward or a judge; which one it is, the method says.

Each has its own tokenizer, reads texts of like length together whatever order they came in, and says which it had to
cut. A text's score does not depend on the texts beside it.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from prefsweep.config.schema import (
    ClassifierConfig,
    OracleConfig,
    PairInputConfig,
    PublishedConfig,
    ScorerConfig,
    TrainedConfig,
)
from prefsweep.data.datasets import synthetic
from prefsweep.data.frames import Rows, joined_rows, paired_rows, templated_rows
from prefsweep.errors import UserError, nearest
from prefsweep.models.flops import forward_flops
from prefsweep.models.heads import REWARD, RewardModel, pad_right
from prefsweep.models.loading import from_pretrained, load_fp32, longest_row
from prefsweep.models.random_models import stand_in

BATCH_TOKENS = 8192  # of one forward, padding included: 16 texts of 512
NOT_A_TOKEN = -1
Measures = dict[str, list[float]]


class Scorer(Protocol):
    def score(self, prompts: list[str], completions: list[str]) -> Measures:
        """One list a measure, `score` among them: higher is better. Others are reported beside it."""
        ...


def load_scorer(config: ScorerConfig, device: torch.device, trained: Path | None = None) -> Scorer:
    """`trained` is the folder of a finished `reward` stage; the scorer of that name alone reads it."""
    module, _, name = config._target_.rpartition(".")
    scorer: Scorer = getattr(import_module(module), name)(config, device, trained)
    return scorer


def flops_of(scorer: Scorer) -> int:
    """Of all that it has read; 0 for one that is no model."""
    return int(getattr(scorer, "flops", 0))


class Oracle:
    """The true reward of the synthetic world, and the share of sentences that are well-formed."""

    def __init__(self, config: OracleConfig, device: torch.device, trained: Path | None):
        pass

    def score(self, prompts: list[str], completions: list[str]) -> Measures:
        texts = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
        return {
            "score": [synthetic.true_reward(text) for text in texts],
            "well_formed": [synthetic.well_formed_share(text) for text in texts],
        }


class ModelScorer(ABC):
    """What the scorers that are models share; each says how it reads texts and which number is the score."""

    model: Any
    tokenizer: Any
    same_length_only = False
    flops = 0  # of all that it has read

    @abstractmethod
    def rows(self, prompts: list[str], completions: list[str]) -> Rows: ...

    @abstractmethod
    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """[B] scores."""

    @torch.inference_mode()
    def score(self, prompts: list[str], completions: list[str]) -> Measures:
        rows = self.rows(prompts, completions)
        where = next(self.model.parameters()).device
        scores = [0.0] * len(rows.ids)
        for batch in batches([len(ids) for ids in rows.ids], self.same_length_only):
            ids, attention = pad_right([rows.ids[index] for index in batch], self.tokenizer.pad_token_id)
            segments, _ = pad_right([rows.segments[index] for index in batch], 0)
            inputs = {"input_ids": ids, "attention_mask": attention, "token_type_ids": segments}
            self.flops += forward_flops(self.model, int(attention.sum()))
            found = self.forward({name: value.to(where) for name, value in inputs.items()})
            for index, value in zip(batch, found.tolist(), strict=True):
                scores[index] = value
        return {"score": scores, "truncated": [float(cut) for cut in rows.was_cut]}


def batches(lengths: list[int], same_only: bool) -> Iterator[list[int]]:
    """Indices of rows of like length, the shortest first, BATCH_TOKENS or one row at a time."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        full = (len(batch) + 1) * lengths[index] > BATCH_TOKENS
        if batch and (full or (same_only and lengths[index] != lengths[batch[0]])):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


class Trained(ModelScorer):
    """The reward model of the `reward` stage."""

    def __init__(self, config: TrainedConfig, device: torch.device, trained: Path | None):
        folder = trained or (Path(config.path) if config.path else None)
        if folder is None:
            raise UserError("scorer trained: needs path=FOLDER, the folder of a finished reward stage")
        if not (folder / REWARD).is_file():
            raise UserError(f"{folder}: holds no {REWARD}; say the folder of a finished reward stage")
        self.asked = json.loads((folder / REWARD).read_text())
        self.tokenizer = from_pretrained(AutoTokenizer, str(folder), {})
        self.model = RewardModel.load(folder, self.asked["pooling"]).to(device).eval()

    def rows(self, prompts: list[str], completions: list[str]) -> Rows:
        return templated_rows(prompts, completions, self.tokenizer, self.asked["template"], self.asked["max_length"])

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        rewards: Tensor = self.model(inputs["input_ids"], inputs["attention_mask"])
        return rewards


class Published(ModelScorer):
    """A sequence classifier from the hub or a folder, in the state in which it was published; or one from nothing."""

    def __init__(self, config: PublishedConfig, device: torch.device, trained: Path | None):
        self.config = config
        model, self.tokenizer = published(config)
        self.model = model.to(device).eval()
        self.room = min(config.max_length, self.tokenizer.model_max_length, longest_row(self.model))
        if self.tokenizer.pad_token_id in (None, self.tokenizer.eos_token_id):
            # These find a text's end by the pad token's id, and would take an EOS for padding: none is given.
            self.model.config.pad_token_id = NOT_A_TOKEN
            self.same_length_only = True
        self.reads_segments = (
            "token_type_ids" in self.tokenizer.model_input_names
            and "token_type_ids" in signature(self.model.forward).parameters
        )

    def logits(self, inputs: dict[str, Tensor]) -> Tensor:
        """[B, labels]."""
        if not self.reads_segments:
            del inputs["token_type_ids"]
        logits: Tensor = self.model(**inputs).logits
        return logits.float()


def published(config: PublishedConfig) -> tuple[PreTrainedModel, Any]:
    """The model and its tokenizer."""
    if config.architecture is not None and config.path is None:
        return stand_in(AutoModelForSequenceClassification, config.architecture)
    where, options = (config.path, {}) if config.path else (str(config.id), {"revision": config.revision})
    key = "the scorer's path"
    model = load_fp32(AutoModelForSequenceClassification, where, options, key)
    return model, from_pretrained(AutoTokenizer, where, options, key)


class Classifier(Published):
    """The logit or the probability of one label, found by its name: models agree on no order of labels."""

    def __init__(self, config: ClassifierConfig, device: torch.device, trained: Path | None):
        super().__init__(config, device, trained)
        self.output = config.output
        labels = {name.lower(): index for index, name in self.model.config.id2label.items()}
        if config.label.lower() not in labels:
            known = [str(name) for name in self.model.config.id2label.values()]
            raise UserError(
                f"label={config.label}: scorer {config.name} has no such label{nearest(config.label.lower(), labels)}; "
                f"there are: {', '.join(known)}"
            )
        self.label = labels[config.label.lower()]

    def rows(self, prompts: list[str], completions: list[str]) -> Rows:
        return joined_rows(prompts, completions, self.tokenizer, self.room)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        logits = self.logits(inputs)
        return (logits.softmax(-1) if self.output == "probability" else logits)[:, self.label]


class PairInput(Published):
    """A reward model that reads (question, answer) as two texts and gives one logit."""

    def __init__(self, config: PairInputConfig, device: torch.device, trained: Path | None):
        super().__init__(config, device, trained)
        if self.model.config.num_labels != 1:
            names = ", ".join(map(str, self.model.config.id2label.values()))
            raise UserError(f"scorer {config.name}: gives several logits ({names}), not one; it is a classifier")

    def rows(self, prompts: list[str], completions: list[str]) -> Rows:
        return paired_rows(prompts, completions, self.tokenizer, self.room)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.logits(inputs)[:, 0]
