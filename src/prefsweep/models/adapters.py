"""LoRA (Hu et al. 2022): W + (alpha / r) B A beside frozen weights; B starts at zero, so that the start is unmoved.

A stage leaves its adapters alone, and beside them what they stand on: the adapters of the stages before it, and a base
that a run of ours made (a hub's is fetched again). So its folder is whole, at the price of the adapters.
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

from prefsweep.config.stage import AdapterConfig
from prefsweep.errors import UserError, nearest
from prefsweep.pipeline.files import link

ADAPTERS = "adapters"  # one folder a stage that trained some, 00 first
BASE = "base"  # whole weights, where they are a run's own
WEIGHTS = "adapter_model.safetensors"


def is_adapted(folder: Path | None) -> bool:
    """Whether a stage left adapters there, not whole weights."""
    return folder is not None and (folder / ADAPTERS).is_dir()


def stack(folder: Path) -> list[Path]:
    """Its adapters, in the order in which they were trained."""
    return sorted((folder / ADAPTERS).iterdir())


def merged(base: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The base with the stack's changes added to its weights: a plain model."""
    for adapter in stack(folder):
        base = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
    return base


def with_adapters(model: PreTrainedModel, adapter: AdapterConfig, start: Path | None, seed: int) -> PreTrainedModel:
    """The same model, its weights frozen, with fresh adapters to train; `start` is the folder that it came from."""
    config = LoraConfig(
        r=adapter.r,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=list(adapter.targets),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),  # GPT-2's lie transposed
        bias="none",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.add_adapter(config)
    config.base_model_name_or_path = None  # transformers puts a path of this machine there
    model.start = start  # what `save_adapters` puts beside them
    return model


def check_targets(targets: list[str], shape: PreTrainedConfig) -> None:
    """Each must name a linear layer of the architecture. No weight is loaded for that."""
    with torch.device("meta"):
        hollow = AutoModelForCausalLM.from_config(shape).base_model
    linear = {name.rpartition(".")[2] for name, part in hollow.named_modules() if isinstance(part, nn.Linear | Conv1D)}
    for target in targets:
        if target not in linear:
            raise UserError(
                f"model.adapter.targets: {shape.model_type} has no layer {target}{nearest(target, linear)}; "
                f"there are: {', '.join(sorted(linear))}"
            )


def has_adapters(model: Any) -> bool:
    return any(isinstance(module, BaseTunerLayer) for module in model.modules())


@contextmanager
def adapters_off(model: Any) -> Iterator[None]:
    """The model as it was before its adapters: PPO's reference, without a second copy."""
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def save_adapters(model: Any, folder: Path) -> None:
    """As another stage of ours reads them, with all that they stand on."""
    start: Path | None = model.start
    if start is not None and is_adapted(start):
        shutil.copytree(start / ADAPTERS, folder / ADAPTERS, dirs_exist_ok=True)
    own = start if start is not None and not is_adapted(start) else (start / BASE if start else None)
    if own is not None and own.is_dir():
        link_base(own, folder / BASE)
    count = len(stack(folder)) if is_adapted(folder) else 0
    model.save_pretrained(folder / ADAPTERS / f"{count:02}")
    (folder / ADAPTERS / f"{count:02}" / "README.md").unlink(missing_ok=True)


def link_base(base: Path, folder: Path) -> None:
    """Finished weights never change, so they are linked where the disk allows it: no second gigabyte."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in base.iterdir():
        if file.is_file() and file.name.startswith(("config.json", "generation_config", "model", "pytorch_model")):
            link(file, folder / file.name)


def restore_adapters(model: Any, checkpoint: Path) -> None:
    """What a checkpoint of ours holds of a model with adapters: those alone."""
    set_peft_model_state_dict(model, load_file(checkpoint / WEIGHTS))
