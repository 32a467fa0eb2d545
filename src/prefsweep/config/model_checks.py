"""Check models, adapters and scorers: where they come from, and their architectures."""

import contextlib
import json
from pathlib import Path
from typing import Any

from prefsweep.config.architectures import Architecture, EncoderArchitecture
from prefsweep.config.schema import (
    DatasetConfig,
    HubScorerConfig,
    ModelConfig,
    OracleConfig,
    ScorerConfig,
    SyntheticReviewsConfig,
    TrainedConfig,
    WeightsConfig,
)
from prefsweep.config.stage import ALL_LINEAR, AdapterConfig
from prefsweep.errors import UserError, nearest

# The linear layers of each known architecture, listed because importing transformers would take seconds.
LAYERS = {
    "gpt2": ("c_attn", "c_fc", "c_proj"),
    "opt": ("fc1", "fc2", "k_proj", "out_proj", "project_in", "project_out", "q_proj", "v_proj"),
}
# The names of the number of attention heads and of the width.
HEADS = (("n_head", "n_embd"), ("num_attention_heads", "hidden_size"), ("n_heads", "dim"))


def check_model(model: ModelConfig) -> None:
    """Check that the base comes from one source: random weights, a local folder, or the hub."""
    check_model_folder("model.path", model.path)
    if model.from_scratch:
        if model.architecture is None:
            raise UserError("model.architecture=null: model.from_scratch=true needs the shape of its random weights")
        if isinstance(model.architecture, EncoderArchitecture):
            kind = f"model.architecture.model_type={model.architecture.model_type}"
            raise UserError(f"{kind}: not a language model; set gpt2, opt or llama")
        check_heads("model.architecture", model.architecture)
        if model.path is not None:
            raise UserError(f"model.path={model.path}: set model.from_scratch=false too, to start from these weights")
    elif model.path is None and model.id is None:
        raise UserError("model.id=null: a model needs an id, a path, or from_scratch=true with an architecture")


def check_heads(key: str, architecture: Architecture) -> None:
    """Check that the number of attention heads divides the width; each architecture has its own names for the two."""
    heads, width = next(names for names in HEADS if hasattr(architecture, names[0]))
    number, size = getattr(architecture, heads), getattr(architecture, width)
    if size % number:
        raise UserError(f"{key}.{heads}={number}: must divide {width}={size}")


def check_encoder(key: str, encoder: WeightsConfig) -> None:
    """Check where the weights of a scorer or of a reward model's encoder come from."""
    check_model_folder(f"{key}.path", encoder.path)
    shape = encoder.architecture
    if shape is None:
        return
    if not isinstance(shape, EncoderArchitecture):
        raise UserError(f"{key}.architecture.model_type={shape.model_type}: not an encoder; set bert or deberta-v2")
    check_heads(f"{key}.architecture", shape)


def check_adapter(key: str, adapter: AdapterConfig, model: ModelConfig) -> None:
    """Check that the model has the layers that an adapter targets, where its architecture is known."""
    if not adapter.targets:
        raise UserError(f"{key}.targets=[]: name the layers that get adapters, as in model.adapter.targets=[c_attn]")
    kind = model.architecture.model_type if model.from_scratch else None  # of the hub's it is checked on loading
    if model.path is not None:
        with contextlib.suppress(OSError, ValueError):
            kind = json.loads((Path(model.path) / "config.json").read_text()).get("model_type")
    layers = LAYERS.get(kind or "", adapter.targets) if adapter.targets != ALL_LINEAR else ALL_LINEAR
    for target in (target for target in adapter.targets if target not in layers):
        choices = f"{nearest(target, layers)}; there are: {', '.join(layers)}"
        raise UserError(f"{key}.targets={target}: {kind} has no such layer{choices}")


def check_scorer(role: str, scorer: Any, dataset: DatasetConfig) -> None:
    """Check the section `reward` or `judge`, and that the scorer can score completions of this dataset."""
    if isinstance(scorer, str):
        raise UserError(f"{role}={scorer}: is a section; choose a scorer by its group, scorer@{role}={scorer}")
    if not isinstance(scorer, ScorerConfig):
        raise UserError(f"{role}: its YAML names no schema; begin it with `defaults: [_classifier, _self_]`")
    if isinstance(scorer, HubScorerConfig):
        check_encoder(role, scorer)
    elif scorer.architecture is not None:
        raise UserError(f"{role}.architecture: scorer {scorer.name} is no model of the hub; set null")
    elif isinstance(scorer, TrainedConfig):
        check_model_folder(f"{role}.path", scorer.path)
    if isinstance(scorer, OracleConfig) and not isinstance(dataset, SyntheticReviewsConfig):
        scores = f"knows the synthetic world alone, and dataset={dataset.name} is another"
        raise UserError(f"scorer@{role}=oracle: {scores}; set scorer@{role}=deberta-v3, or another")


def check_model_folder(key: str, path: str | None) -> None:
    """Refuse a path that is not a transformers folder."""
    if path is not None and not (Path(path) / "config.json").is_file():
        raise UserError(f"{key}={path}: no such model folder (it must hold a config.json)")
