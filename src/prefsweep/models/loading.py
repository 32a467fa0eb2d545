"""Tokenizers and policies, from a stage's folder, a local folder or the hub. fp32 weights, dropout off."""

import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from prefsweep.config.architectures import Architecture
from prefsweep.config.schema import ModelConfig, RuntimeConfig
from prefsweep.config.stages import DPOConfig, EncoderConfig, OnPolicyConfig, SFTConfig
from prefsweep.errors import UserError
from prefsweep.hub import Repository, hub_is_reachable, unreachable
from prefsweep.models.adapters import BASE, check_targets, is_adapted, merged, with_adapters

# Each architecture's own names for dropout. Off everywhere: two forwards of one model must agree.
DROPOUT_FIELDS = (
    *("resid_pdrop", "embd_pdrop", "attn_pdrop", "summary_first_dropout"),
    *("dropout", "attention_dropout", "activation_dropout", "layerdrop"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "pooler_dropout"),
)

# What a file that is no model, or not of the kind that is asked for, raises.
UNREADABLE = (ValueError, RuntimeError, KeyError, UnpicklingError, SafetensorError)

# TRL and transformers call transformers by names that it has deprecated: nothing a user can act on.
warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl)\.")
transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()


def device(runtime: RuntimeConfig) -> torch.device:
    if runtime.device == "cuda" and not torch.cuda.is_available():
        raise UserError("runtime.device=cuda: no GPU is visible here; say runtime=cpu or runtime=auto")
    wants_gpu = runtime.device != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if wants_gpu else "cpu")


def autocast(precision: str, where: torch.device) -> AbstractContextManager[Any]:
    """bf16 over fp32 weights, or nothing."""
    return torch.autocast(where.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


def place(model: ModelConfig | EncoderConfig, policy: Path | None) -> tuple[str, dict[str, Any]]:
    """Where transformers finds it: the folder of a finished stage, a local folder, or a pinned commit of the hub."""
    if policy is not None:
        return str(policy), {}
    if model.path is not None:
        return model.path, {}
    assert model.id is not None
    return model.id, {"revision": model.revision}


def load_tokenizer(model: ModelConfig, policy: Path | None) -> Any:
    where, options = place(model, policy)
    tokenizer = from_pretrained(AutoTokenizer, where, options)
    if tokenizer.eos_token_id is None:
        raise UserError(f"{where}: its tokenizer has no EOS token, so no answer could ever end")
    if tokenizer.pad_token_id is None:
        # Only a filler: every mask here is by length, so EOS stays learned where it is an answer's end.
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_policy(model: ModelConfig, policy: Path | None) -> PreTrainedModel:
    """Whole weights, adapters merged into them."""
    where, options = place(model, base_of(policy))
    made = load_fp32(AutoModelForCausalLM, where, options)
    return merged(made, policy) if policy is not None and is_adapted(policy) else made


def base_of(policy: Path | None) -> Path | None:
    """The whole weights under a policy's adapters; None where they are the config's model."""
    if policy is None or not is_adapted(policy):
        return policy
    return policy / BASE if (policy / BASE).is_dir() else None


def load_learner(
    stage: SFTConfig | DPOConfig | OnPolicyConfig, model: ModelConfig, policy: Path | None
) -> PreTrainedModel:
    """The policy to train: with fresh adapters where the stage says so, else whole."""
    if not stage.lora:
        return load_policy(model, policy)
    where, options = place(model, base_of(policy))
    check_targets(stage.adapter.targets, from_pretrained(AutoConfig, where, options))
    return with_adapters(load_policy(model, policy), stage.adapter, policy, stage.seed)


def load_fp32(kind: Any, where: str, options: dict[str, Any], key: str = "model.path") -> PreTrainedModel:
    """fp32 whatever the checkpoint was saved in (opt-350m's is fp16, and would train to NaN). `key` is what the user
    sets to say where it is."""
    config = from_pretrained(AutoConfig, where, options, key)
    without_dropout(config)
    settings = {**options, "config": config, "dtype": torch.float32, "output_loading_info": True}
    made, found = from_pretrained(kind, where, settings, key)
    lacking = sorted(name for name in found["missing_keys"] if "pooler" not in name or kind is not AutoModel)
    if lacking:  # transformers would make them up
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise UserError(f"{where}: lacks {lacking[0]}{more}, so it is another kind of model than {key} asks for")
    assert isinstance(made, PreTrainedModel)
    return made


def without_dropout(config: Any) -> None:
    for field in DROPOUT_FIELDS:
        if hasattr(config, field):
            setattr(config, field, 0.0)


def longest_row(model: PreTrainedModel) -> int:
    """As many tokens as it has positions for; RoBERTa's begin after its pad token's id."""
    found: int = model.config.max_position_embeddings
    return found - model.config.pad_token_id - 1 if "roberta" in model.config.model_type else found


def init_from_scratch(
    architecture: Architecture, tokenizer: Any, kind: Any = AutoModelForCausalLM, **more: Any
) -> PreTrainedModel:
    """A model of this shape with fresh weights; the vocabulary is what the tokenizer ended up with."""
    shape = {key: value for key, value in vars(architecture).items() if key not in ("vocab_size", "labels")}
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    if architecture.model_type == "gpt2":
        more["activation_function"] = "gelu_pytorch_tanh"  # GPT-2's own in one kernel: three times as fast
    config = AutoConfig.for_model(**shape, **special, **more, vocab_size=len(tokenizer))
    without_dropout(config)
    made = kind.from_config(config, dtype=torch.float32)
    assert isinstance(made, PreTrainedModel)
    return made


def from_pretrained(kind: Any, where: str, options: dict[str, Any], key: str = "model.path") -> Any:
    """From disk where it lies there: a pinned commit that is cached never asks the network.

    safetensors where there are some, else a .bin that torch reads with weights_only; no code that came with it.
    """
    safe = {**options, "trust_remote_code": False}
    try:
        return kind.from_pretrained(where, local_files_only=True, **safe)
    except OSError as error:
        if Path(where).exists():
            raise unreadable(where, error) from error
    except UNREADABLE as error:
        raise unreadable(where, error) from error
    if not hub_is_reachable():
        raise unreachable(Repository(where, options.get("revision"), "model", key))
    try:
        return kind.from_pretrained(where, **safe)
    except (OSError, *UNREADABLE) as error:
        raise unreadable(where, error) from error


def unreadable(where: str, error: Exception) -> UserError:
    said = str(error).strip()
    if isinstance(error, UnpicklingError):
        return UserError(f"{where}: its .bin holds more than weights, so it is not opened; take a copy in safetensors")
    if "trust_remote_code" in said:
        return UserError(f"{where}: comes with code of its own, which is never run; take one that transformers knows")
    return UserError(f"{where}: cannot be read as a model ({said.splitlines()[0] if said else type(error).__name__})")
