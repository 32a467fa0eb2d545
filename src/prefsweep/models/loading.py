"""Tokenizers and policies, from a stage's folder, a local folder or the hub. fp32 weights, dropout off."""

import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.activations import AccurateGELUActivation, FastGELUActivation, GELUTanh, NewGELUActivation
from transformers.utils import logging as transformers_logging

from prefsweep.config.architectures import Architecture, EncoderArchitecture
from prefsweep.config.schema import ModelConfig, RuntimeConfig
from prefsweep.config.stage import PolicyTrainingConfig
from prefsweep.config.stages import EncoderConfig, OnPolicyConfig
from prefsweep.errors import UserError
from prefsweep.hub import Repository, hub_is_reachable, offline, unreachable
from prefsweep.models.adapters import BASE, check_targets, is_adapted, merged, with_adapters
from prefsweep.models.tokenizers import CONVENTIONS, train_tokenizer
from prefsweep.pipeline.memory import keep_freed_memory

# Each architecture's own names for dropout. Off everywhere: two forwards of one model must agree.
DROPOUT_FIELDS = (
    *("resid_pdrop", "embd_pdrop", "attn_pdrop", "summary_first_dropout"),
    *("dropout", "attention_dropout", "activation_dropout", "layerdrop"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "pooler_dropout"),
)

# Those of transformers' that are named gelu_new, gelu_fast and gelu_accurate.
TANH_GELUS = (NewGELUActivation, FastGELUActivation, AccurateGELUActivation)

BYTES = 256  # the tokens of a tokenizer that was trained on no text, beside its special ones

# Raised by a file that is no model, or not one of the requested kind.
UNREADABLE = (ValueError, RuntimeError, KeyError, UnpicklingError, SafetensorError)

# TRL and transformers call transformers by names that it has deprecated: nothing a user can act on.
warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl)\.")
transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()


def device(runtime: RuntimeConfig) -> torch.device:
    """Return the device that a stage works on, prepared: a CPU's memory is kept, a GPU takes batches of any shape."""
    if runtime.device == "cuda" and not torch.cuda.is_available():
        raise UserError("runtime.device=cuda: no GPU is visible here; set runtime=cpu or runtime=auto")
    if runtime.device == "cpu" or not torch.cuda.is_available():
        keep_freed_memory()
        return torch.device("cpu")
    # cuDNN's attention, which torch prefers for bf16 on a Hopper GPU, plans anew for every shape: half a second a step.
    torch.backends.cuda.enable_cudnn_sdp(False)
    return torch.device("cuda")


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Return a context of bf16 over fp32 weights, or one that does nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


def source_of(model: ModelConfig | EncoderConfig, policy: Path | None) -> tuple[str, dict[str, Any]]:
    """Return the arguments of `from_pretrained`: a finished stage's folder, a local one, or a revision of the hub."""
    if policy is not None:
        return str(policy), {}
    if model.path is not None:
        return model.path, {}
    assert model.id is not None
    return model.id, {"revision": model.revision}


def load_tokenizer(model: ModelConfig, policy: Path | None) -> Any:
    source, options = source_of(model, policy)
    tokenizer = from_pretrained(AutoTokenizer, source, options)
    if tokenizer.eos_token_id is None:
        raise UserError(f"{source}: its tokenizer has no EOS token, so no completion could ever end")
    if tokenizer.pad_token_id is None:
        # Only a filler: every mask here is by length, so EOS stays learned where it ends a completion.
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_policy(model: ModelConfig, policy: Path | None) -> PreTrainedModel:
    """Load a policy with its adapters, if it has any, merged into the weights."""
    base = load_fp32(AutoModelForCausalLM, *source_of(model, base_of(policy)))
    return merged(base, policy) if policy is not None and is_adapted(policy) else base


def base_of(policy: Path | None) -> Path | None:
    """Return the folder of a policy's full weights, under its adapters if it has any; None: the config's model."""
    if policy is None or not is_adapted(policy):
        return policy
    return policy / BASE if (policy / BASE).is_dir() else None


def load_learner(
    stage: PolicyTrainingConfig | OnPolicyConfig, model: ModelConfig, policy: Path | None
) -> PreTrainedModel:
    """Load the policy to train, with fresh adapters if `stage.lora`."""
    if not stage.lora:
        return load_policy(model, policy)
    check_targets(stage.adapter.targets, from_pretrained(AutoConfig, *source_of(model, base_of(policy))))
    return with_adapters(load_policy(model, policy), stage.adapter, policy, stage.seed)


def load_fp32(kind: Any, source: str, options: dict[str, Any], key: str = "model.path") -> PreTrainedModel:
    """Load a model in fp32 whatever the checkpoint was saved in (opt-350m's is fp16, and would train to NaN).

    `key` is the config key that sets the source, named in errors.
    """
    config = from_pretrained(AutoConfig, source, options, key)
    without_dropout(config)
    settings = {**options, "config": config, "dtype": torch.float32, "output_loading_info": True}
    model, info = from_pretrained(kind, source, settings, key)
    missing = sorted(name for name in info["missing_keys"] if "pooler" not in name or kind is not AutoModel)
    if missing:  # transformers would initialise them randomly
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"{source}: lacks {missing[0]}{more}, so it is another kind of model than {key} needs")
    assert isinstance(model, PreTrainedModel)
    fuse_activations(model)
    return model


def fuse_activations(model: nn.Module) -> None:
    """Compute the tanh form of GELU in one operation where transformers spells it out in eight: equal to 2.4e-7.

    Only the modules change: the config, and so a saved model, names the activation that it had.
    """
    for module in list(model.modules()):
        for name, part in module.named_children():
            if type(part) in TANH_GELUS:
                setattr(module, name, GELUTanh())


def without_dropout(config: Any) -> None:
    for field in DROPOUT_FIELDS:
        if hasattr(config, field):
            setattr(config, field, 0.0)


def longest_row(model: PreTrainedModel) -> int:
    """Return the number of tokens that a model has positions for; RoBERTa's begin after its pad token's id."""
    positions: int = model.config.max_position_embeddings
    return positions - model.config.pad_token_id - 1 if "roberta" in model.config.model_type else positions


def init_from_scratch(
    architecture: Architecture, tokenizer: Any, kind: Any = AutoModelForCausalLM, **more: Any
) -> PreTrainedModel:
    """Return a model of this architecture with random weights; the tokenizer decides the size of its vocabulary."""
    shape = {key: value for key, value in vars(architecture).items() if key not in ("vocab_size", "labels")}
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    if architecture.model_type == "gpt2":
        # the same function as GPT-2's in one kernel: three times as fast
        more["activation_function"] = "gelu_pytorch_tanh"
    config = AutoConfig.for_model(**shape, **special, **more, vocab_size=len(tokenizer))
    without_dropout(config)
    model = kind.from_config(config, dtype=torch.float32)
    assert isinstance(model, PreTrainedModel)
    return model


def random_encoder(kind: Any, architecture: EncoderArchitecture) -> tuple[PreTrainedModel, Any]:
    """Return a model with random weights and a tokenizer of bytes, in place of those on the hub.

    `kind` is an Auto class of transformers, `architecture.labels` its outputs. Equal architectures give equal models.
    """
    vocabulary = BYTES + len(CONVENTIONS[architecture.model_type].specials)
    tokenizer = train_tokenizer([], vocabulary, architecture.max_position_embeddings, architecture.model_type)
    labels = {"id2label": dict(enumerate(architecture.labels))} if architecture.labels else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return init_from_scratch(architecture, tokenizer, kind, **labels), tokenizer


def from_pretrained(kind: Any, source: str, options: dict[str, Any], key: str = "model.path") -> Any:
    """Load from a local folder, the hub's cache or the hub, in this order: a cached revision needs no network.

    Weights are safetensors, or else a .bin that torch reads with weights_only; code that comes with a model is not run.
    """
    safe = {**options, "trust_remote_code": False}
    try:
        with offline():
            return kind.from_pretrained(source, local_files_only=True, **safe)
    except OSError as error:
        if Path(source).exists():
            raise unreadable(source, error) from error
    except UNREADABLE as error:
        raise unreadable(source, error) from error
    if not hub_is_reachable():
        raise unreachable(Repository(source, options.get("revision"), "model", key))
    try:
        return kind.from_pretrained(source, **safe)
    except (OSError, *UNREADABLE) as error:
        raise unreadable(source, error) from error


def unreadable(source: str, error: Exception) -> UserError:
    message = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, UnpicklingError):
        return UserError(f"{source}: its .bin holds more than weights, so it is not opened; take a copy in safetensors")
    if "trust_remote_code" in str(error):
        return UserError(f"{source}: comes with code of its own, which is never run; take one that transformers knows")
    return UserError(f"{source}: cannot be read as a model ({message})")
