"""Encoders with random weights in place of those on the hub: a small model of the same architecture and a tokenizer of
bytes with that architecture's own special tokens. Equal architectures give equal models."""

from typing import Any

import torch
from transformers import PreTrainedModel

from prefsweep.config.architectures import EncoderArchitecture
from prefsweep.models.loading import init_from_scratch
from prefsweep.models.tokenizers import CONVENTIONS, train_tokenizer

BYTES = 256


def random_encoder(kind: Any, architecture: EncoderArchitecture) -> tuple[PreTrainedModel, Any]:
    """Return a model and its tokenizer; `kind` is an Auto class of transformers, `architecture.labels` its outputs."""
    vocabulary = BYTES + len(CONVENTIONS[architecture.model_type].specials)
    tokenizer = train_tokenizer([], vocabulary, architecture.max_position_embeddings, architecture.model_type)
    labels = {"id2label": dict(enumerate(architecture.labels))} if architecture.labels else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return init_from_scratch(architecture, tokenizer, kind, **labels, **architecture.options), tokenizer
