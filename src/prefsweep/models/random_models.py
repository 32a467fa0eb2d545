"""Encoders from nothing, in place of published ones: a small model of the same architecture with random weights, and a
tokenizer of bytes with that architecture's own special tokens. Equal architectures give equal models."""

from typing import Any

import torch
from transformers import PreTrainedModel

from prefsweep.config.architectures import EncoderArchitecture
from prefsweep.models.loading import init_from_scratch
from prefsweep.models.tokenizers import CONVENTIONS, train_tokenizer

BYTES = 256


def stand_in(kind: Any, architecture: EncoderArchitecture) -> tuple[PreTrainedModel, Any]:
    """`kind` is transformers' class of model; its outputs are named by `labels`, in their order."""
    vocabulary = BYTES + len(CONVENTIONS[architecture.model_type].specials)
    tokenizer = train_tokenizer([], vocabulary, architecture.max_position_embeddings, architecture.model_type)
    named = {"id2label": dict(enumerate(architecture.labels))} if architecture.labels else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return init_from_scratch(architecture, tokenizer, kind, **named), tokenizer
