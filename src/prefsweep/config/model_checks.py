"""What can be wrong with a model, an adapter or a scorer: where it comes from, and what it is made of."""

import contextlib
import json
from pathlib import Path
from typing import Any

from prefsweep.config.architectures import Architecture, EncoderArchitecture, GPT2Architecture, OPTArchitecture
from prefsweep.config.schema import (
    DatasetConfig,
    ModelConfig,
    OracleConfig,
    PublishedConfig,
    ScorerConfig,
    SyntheticReviewsConfig,
)
from prefsweep.config.stages import AdapterConfig
from prefsweep.errors import UserError, nearest

# The linear layers of a block, in the architectures that are known here: asking transformers would take seconds.
LAYERS = {
    "gpt2": ("c_attn", "c_fc", "c_proj"),
    "opt": ("fc1", "fc2", "k_proj", "out_proj", "project_in", "project_out", "q_proj", "v_proj"),
}


def check_model(model: ModelConfig) -> None:
    check_model_folder("model.path", model.path)
    if model.base == "pretrain":
        if model.architecture is None:
            raise UserError("model.architecture=null: model.base=pretrain makes a model from nothing, so it needs one")
        if not isinstance(model.architecture, (GPT2Architecture, OPTArchitecture)):
            raise UserError(
                f"model.architecture.model_type={model.architecture.model_type}: is no language model; say gpt2 or opt"
            )
        check_heads("model.architecture", model.architecture)
        if model.path is not None:
            raise UserError(f"model.path={model.path}: also say model.base=null, to take these weights as the base")
    elif model.path is None and model.id is None:
        raise UserError("model.id=null: a model needs an id, a path, or base=pretrain with an architecture")


def check_heads(key: str, architecture: Architecture) -> None:
    """Attention splits the width among its heads; each kind has its own words for the two."""
    for heads, width in (("n_head", "n_embd"), ("num_attention_heads", "hidden_size"), ("n_heads", "dim")):
        if hasattr(architecture, heads) and getattr(architecture, width) % getattr(architecture, heads):
            raise UserError(
                f"{key}.{heads}={getattr(architecture, heads)}: must divide {width}={getattr(architecture, width)}"
            )


def check_encoder(key: str, owner: Any) -> None:
    """What a scorer or an encoder is made from, where it comes from nothing."""
    shape = owner.architecture
    if shape is None or getattr(owner, "path", None) is not None:
        return
    if not isinstance(shape, EncoderArchitecture):
        raise UserError(f"{key}.architecture.model_type={shape.model_type}: is no encoder; say bert, or another")
    check_heads(f"{key}.architecture", shape)


def check_adapter(key: str, adapter: AdapterConfig, model: ModelConfig) -> None:
    if not adapter.targets:
        raise UserError(f"{key}.targets=[]: name the layers that get adapters, as in model.adapter.targets=[c_attn]")
    made = model.architecture if model.base == "pretrain" else None
    kind = made.model_type if made is not None else model_type(model.path)
    for target in adapter.targets:
        if kind in LAYERS and target not in LAYERS[kind]:
            raise UserError(
                f"{key}.targets={target}: {kind} has no such layer{nearest(target, LAYERS[kind])}; there are: "
                f"{', '.join(LAYERS[kind])}"
            )


def model_type(folder: str | None) -> str | None:
    """As a local model's own config says. None for one on the hub: its targets are looked at before it is loaded."""
    if folder is not None:
        with contextlib.suppress(OSError, ValueError):
            found: str | None = json.loads((Path(folder) / "config.json").read_text()).get("model_type")
            return found
    return None


def check_scorer(role: str, scorer: Any, dataset: DatasetConfig) -> None:
    if isinstance(scorer, str):
        raise UserError(
            f"{role}={scorer}: holds keys of its own; choose a whole one by its group, scorer@{role}={scorer}"
        )
    if not isinstance(scorer, ScorerConfig):
        raise UserError(f"{role}: its YAML names no schema; begin it with `defaults: [_classifier, _self_]`")
    check_model_folder(f"{role}.path", getattr(scorer, "path", None))
    if scorer.architecture is not None and not isinstance(scorer, PublishedConfig):
        raise UserError(f"{role}.architecture: scorer {scorer.name} is no published model; say null")
    check_encoder(role, scorer)
    if isinstance(scorer, OracleConfig) and not isinstance(dataset, SyntheticReviewsConfig):
        raise UserError(
            f"scorer@{role}=oracle: knows the synthetic world alone and would score every text of "
            f"dataset={dataset.name} 0; say scorer@{role}=deberta-v3, or another"
        )


def check_model_folder(key: str, path: str | None) -> None:
    if path is not None and not (Path(path) / "config.json").is_file():
        raise UserError(f"{key}={path}: no such model folder (it must hold a config.json)")
