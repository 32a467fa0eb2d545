"""A run's policy as a plain transformers folder: whole weights, or adapters that peft reads."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

from prefsweep.config import ModelConfig
from prefsweep.errors import UserError

OURS = ("record.json", "history.jsonl", "rollouts.jsonl", "validation.jsonl")  # of no use elsewhere


def export(run: Path, target: Path, merge: bool) -> None:
    """Written aside, then renamed: a folder that is there is whole."""
    stage, model = finished(run)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: is there already; say a folder that is not")
    from prefsweep.models.adapters import ADAPTERS, is_adapted

    aside = target.with_name(f".{target.name}.aside")
    shutil.rmtree(aside, ignore_errors=True)
    if not is_adapted(stage):
        shutil.copytree(stage, aside, ignore=shutil.ignore_patterns(*OURS, ADAPTERS))
    elif merge:
        save_merged(model, stage, aside)
    else:
        copy_adapters(model, stage, aside)
    if target.is_dir():
        target.rmdir()
    aside.rename(target)


def finished(run: Path) -> tuple[Path, ModelConfig]:
    """The folder of the stage whose policy is a run's result, and the model it began with."""
    try:
        told = json.loads((run / "run.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{run}: holds no run.json; say the folder of a run, as in outputs/runs/NAME") from error
    config, role = told["config"], told["config"]["method"]["result"]
    role = config["model"]["base"] if role == "base" else role
    if role not in told["stages"]:
        raise UserError(f"{run}: its policy is the model as it came; there is nothing to export")
    stage = Path(config["runtime"]["outputs"]) / "stages" / role.partition("/")[0] / told["stages"][role]
    if not (stage / "record.json").is_file():
        raise UserError(
            f"{run}: its stage {role} is not in {stage} (status: {told['status']}); stand where it ran, or run it again"
        )
    known = {field.name for field in dataclasses.fields(ModelConfig)}
    return stage, ModelConfig(**{name: value for name, value in config["model"].items() if name in known})


def save_merged(model: ModelConfig, stage: Path, folder: Path) -> None:
    from prefsweep.models.loading import load_policy, load_tokenizer

    load_policy(model, stage).save_pretrained(folder)
    load_tokenizer(model, stage).save_pretrained(folder)


def copy_adapters(model: ModelConfig, stage: Path, folder: Path) -> None:
    """One stage's adapters over a model that others have too."""
    from prefsweep.models.adapters import BASE, stack
    from prefsweep.models.loading import load_tokenizer

    if len(stack(stage)) > 1 or (stage / BASE).is_dir():
        raise UserError(f"{stage}: its adapters stand on weights that this run made; say --merge to write both as one")
    (adapters,) = stack(stage)
    shutil.copytree(adapters, folder)
    load_tokenizer(model, stage).save_pretrained(folder)
    settings: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text())
    settings |= {"base_model_name_or_path": model.path or model.id, "revision": None if model.path else model.revision}
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")
