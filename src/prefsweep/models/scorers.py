"""Scorers: texts in, scores out. The method decides whether one is its reward or the judge.

Each has its own tokenizer, batches texts by length and reports which it had to cut. A text's score does not depend on
the texts of its batch.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from prefsweep.config.schema import (
    ClassifierConfig,
    HubScorerConfig,
    OracleConfig,
    PairInputConfig,
    ScorerConfig,
    TrainedConfig,
)
from prefsweep.data.datasets import synthetic
from prefsweep.data.dialogue import bare_question
from prefsweep.data.frames import Rows, joined_rows, paired_rows, templated_rows
from prefsweep.errors import UserError, nearest
from prefsweep.models.batching import batches_by_length
from prefsweep.models.flops import forward_flops
from prefsweep.models.heads import REWARD, RewardModel, pad_right
from prefsweep.models.loading import from_pretrained, load_fp32, longest_row, random_encoder
from prefsweep.pipeline.imports import import_object

BATCH_TOKENS = 8192  # of one forward, padding included, for example 16 texts of 512
NOT_A_TOKEN = -1
Measures = dict[str, list[float]]
Ended = Sequence[bool] | None


class Scorer(Protocol):
    def score(self, prompts: list[str], completions: list[str], ended: Ended = None) -> Measures:
        """Return a list of values for each measure; one is `score`, higher is better, others are reported beside it.

        `ended` says of each completion whether it came to its end; None: all of them did.
        """
        ...


def load_scorer(config: ScorerConfig, device: torch.device, trained: Path | None = None) -> Scorer:
    """Load a scorer; only the scorer `trained` reads `trained`, the folder of a finished reward_model stage."""
    scorer: Scorer = import_object(config._target_)(config, device, trained)
    return scorer


def flops_of(scorer: Scorer) -> int:
    """Return the floating-point operations that a scorer has spent so far; 0 for one that is no model."""
    return int(getattr(scorer, "flops", 0))


class Oracle:
    """The true reward of the synthetic world, and the share of sentences that are well-formed."""

    def __init__(self, config: OracleConfig, device: torch.device, trained: Path | None):
        pass

    def score(self, prompts: list[str], completions: list[str], ended: Ended = None) -> Measures:
        texts = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
        return {
            "score": [synthetic.true_reward(text) for text in texts],
            "well_formed": [synthetic.well_formed_share(text) for text in texts],
        }


class ModelScorer(ABC):
    """A scorer that is a model: a subclass defines its rows of tokens and which of its outputs is the score."""

    model: Any
    tokenizer: Any
    same_length_only = False
    flops = 0  # of all that was scored

    @abstractmethod
    def rows(self, prompts: list[str], completions: list[str], ended: Ended) -> Rows: ...

    @abstractmethod
    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the scores [B]."""

    @torch.inference_mode()
    def score(self, prompts: list[str], completions: list[str], ended: Ended = None) -> Measures:
        rows = self.rows(prompts, completions, ended)
        device = next(self.model.parameters()).device
        scores = [0.0] * len(rows.ids)
        lengths = list(map(len, rows.ids))
        for batch in batches_by_length(lengths, batch_tokens=BATCH_TOKENS, equal_only=self.same_length_only):
            ids, attention = pad_right([rows.ids[index] for index in batch], self.tokenizer.pad_token_id)
            segments, _ = pad_right([rows.segments[index] for index in batch], 0)
            inputs = {"input_ids": ids, "attention_mask": attention, "token_type_ids": segments}
            self.flops += forward_flops(self.model, int(attention.sum()))
            values = self.forward({name: value.to(device) for name, value in inputs.items()})
            for index, value in zip(batch, values.tolist(), strict=True):
                scores[index] = value
        return {
            "score": scores,
            "truncated": list(map(float, rows.was_cut)),
            "prompt_mostly_truncated": list(map(float, rows.is_prompt_lost)),
        }


class Trained(ModelScorer):
    """The reward model of a finished reward_model stage. It reads EOS only where a completion ended, as in training."""

    def __init__(self, config: TrainedConfig, device: torch.device, trained: Path | None):
        folder = trained or (Path(config.path) if config.path else None)
        if folder is None:
            raise UserError("scorer trained: needs path=FOLDER, the folder of a finished reward_model stage")
        if not (folder / REWARD).is_file():
            raise UserError(f"{folder}: holds no {REWARD}; set the folder of a finished reward_model stage")
        self.settings = json.loads((folder / REWARD).read_text())
        self.tokenizer = from_pretrained(AutoTokenizer, str(folder), {})
        self.model = RewardModel.load(folder).to(device).eval()

    def rows(self, prompts: list[str], completions: list[str], ended: Ended) -> Rows:
        lengths = self.settings["max_length"], self.settings["prompt_tokens"]
        return templated_rows(prompts, completions, self.tokenizer, self.settings["template"], *lengths, ended)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        rewards: Tensor = self.model(inputs["input_ids"], inputs["attention_mask"])
        return rewards


class HubScorer(ModelScorer):
    """A sequence classifier from the hub or a local folder; or one with random weights."""

    def __init__(self, config: HubScorerConfig, device: torch.device, trained: Path | None):
        self.config = config
        model, self.tokenizer = load_classifier(config)
        self.model = model.to(device).eval()
        self.max_length = min(config.max_length, self.tokenizer.model_max_length, longest_row(self.model))
        if self.tokenizer.pad_token_id in (None, self.tokenizer.eos_token_id):
            # Such models find a text's end by the pad token's id and would take EOS for padding, so they get no pad id.
            self.model.config.pad_token_id = NOT_A_TOKEN
            self.same_length_only = True
        self.reads_segments = (
            "token_type_ids" in self.tokenizer.model_input_names
            and "token_type_ids" in signature(self.model.forward).parameters
        )

    def logits(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the logits of all labels [B, labels]."""
        if not self.reads_segments:
            del inputs["token_type_ids"]
        logits: Tensor = self.model(**inputs).logits
        return logits.float()


def load_classifier(config: HubScorerConfig) -> tuple[PreTrainedModel, Any]:
    """Return the model and its tokenizer."""
    if config.architecture is not None and config.path is None:
        return random_encoder(AutoModelForSequenceClassification, config.architecture)
    source, options = (config.path, {}) if config.path else (str(config.id), {"revision": config.revision})
    key = "the scorer's path"
    model = load_fp32(AutoModelForSequenceClassification, source, options, key)
    return model, from_pretrained(AutoTokenizer, source, options, key)


class Classifier(HubScorer):
    """The logit or the probability of one label, found by its name: the order of labels differs between models."""

    def __init__(self, config: ClassifierConfig, device: torch.device, trained: Path | None):
        super().__init__(config, device, trained)
        self.output = config.output
        labels = {name.lower(): index for index, name in self.model.config.id2label.items()}
        if config.label.lower() not in labels:
            names = [str(name) for name in self.model.config.id2label.values()]
            raise UserError(
                f"label={config.label}: scorer {config.name} has no such label{nearest(config.label.lower(), labels)}; "
                f"there are: {', '.join(names)}"
            )
        self.label = labels[config.label.lower()]

    def rows(self, prompts: list[str], completions: list[str], ended: Ended) -> Rows:
        return joined_rows(prompts, completions, self.tokenizer, self.max_length, self.config.prompt_tokens)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        logits = self.logits(inputs)
        return (logits.softmax(-1) if self.output == "probability" else logits)[:, self.label]


class PairInput(HubScorer):
    """A reward model that reads (question, answer) as two texts and gives one logit."""

    def __init__(self, config: PairInputConfig, device: torch.device, trained: Path | None):
        super().__init__(config, device, trained)
        self.is_bare = config.question == "bare"
        if self.model.config.num_labels != 1:
            names = ", ".join(map(str, self.model.config.id2label.values()))
            raise UserError(f"scorer {config.name}: gives several logits ({names}), not one; it is a classifier")

    def rows(self, prompts: list[str], completions: list[str], ended: Ended) -> Rows:
        if self.is_bare:
            prompts, completions = list(map(bare_question, prompts)), [text.removeprefix(" ") for text in completions]
        return paired_rows(prompts, completions, self.tokenizer, self.max_length, self.config.prompt_tokens)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.logits(inputs)[:, 0]
