"""LoRA (Hu et al. 2022): W + (alpha / r) B A beside frozen weights; B starts at zero, so that the model is unchanged.

A stage saves only adapters: its own, those of the stages before it, and a link to the base weights if a stage of this
project trained them (a base of the hub is downloaded again). So its folder is complete at the size of the adapters.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from prefsweep.config.stage import ALL_LINEAR, AdapterConfig
from prefsweep.errors import UserError, nearest
from prefsweep.pipeline.files import link

ADAPTERS = "adapters"  # one folder for each stage that trained some, 00 first
BASE = "base"  # the full weights under them, if a stage of this project trained those
WEIGHTS = "adapter_model.safetensors"


def is_adapted(folder: Path | None) -> bool:
    """Whether a stage saved adapters there, not full weights."""
    return folder is not None and (folder / ADAPTERS).is_dir()


def stack(folder: Path) -> list[Path]:
    """Return its adapters in the order in which they were trained."""
    return sorted((folder / ADAPTERS).iterdir())


def merged(base: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Return the base with the adapters of `folder` merged into its weights: a plain model."""
    for adapter in stack(folder):
        base = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
    return base


def with_adapters(model: PreTrainedModel, adapter: AdapterConfig, start: Path | None, seed: int) -> PreTrainedModel:
    """Return the model with frozen weights and fresh adapters to train; `start` is the folder it was loaded from."""
    config = LoraConfig(
        r=adapter.r,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules="all-linear" if adapter.targets == ALL_LINEAR else list(adapter.targets),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),  # GPT-2's are transposed
        bias="none",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.add_adapter(config)
    for layer in tuner_layers(model):  # autocast would cast back what they cast to fp32
        layer.cast_input_dtype_enabled = False
    config.base_model_name_or_path = None  # transformers puts a path of this machine there
    model.start = start  # whose adapters and base `save_adapters` saves too
    return model


def check_targets(targets: list[str], shape: PreTrainedConfig) -> None:
    """Raise a UserError at a target that is no linear layer of the architecture; no weight is loaded for that."""
    if targets == ALL_LINEAR:
        return
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape).base_model
    linear = {name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, nn.Linear | Conv1D)}
    for target in targets:
        if target not in linear:
            raise UserError(
                f"model.adapter.targets: {shape.model_type} has no layer {target}{nearest(target, linear)}; "
                f"there are: {', '.join(sorted(linear))}"
            )


def tuner_layers(model: Any) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


def has_adapters(model: Any) -> bool:
    return bool(tuner_layers(model))


@contextmanager
def adapters_off(model: Any) -> Iterator[None]:
    """Switch the adapters off inside the `with` block: PPO's reference, without a second copy."""
    layers = tuner_layers(model)
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def save_adapters(model: Any, folder: Path) -> None:
    """Save the adapters, those of earlier stages and a link to the base, as `merged` and `load_policy` read them."""
    start: Path | None = model.start
    if start is not None and is_adapted(start):
        shutil.copytree(start / ADAPTERS, folder / ADAPTERS, dirs_exist_ok=True)
    base = start / BASE if start is not None and is_adapted(start) else start
    if base is not None and base.is_dir():
        (folder / BASE).mkdir(parents=True, exist_ok=True)
        for file in base.iterdir():  # linked where the disk allows it: they never change
            if file.is_file() and file.name.startswith(("config.json", "generation_config", "model", "pytorch_model")):
                link(file, folder / BASE / file.name)
    count = len(stack(folder)) if is_adapted(folder) else 0
    model.save_pretrained(folder / ADAPTERS / f"{count:02}")
    (folder / ADAPTERS / f"{count:02}" / "README.md").unlink(missing_ok=True)


def restore_adapters(model: Any, checkpoint: Path) -> None:
    """Load the adapters of a checkpoint, which holds no other weights of a model that has some."""
    set_peft_model_state_dict(model, load_file(checkpoint / WEIGHTS))
