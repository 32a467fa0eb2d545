"""A run's policy as a plain transformers folder: whole weights, or adapters that peft reads."""

import json
import shutil
from pathlib import Path
from typing import Any

from prefsweep.config.schema import ModelConfig
from prefsweep.errors import UserError

POLICIES = ("pretrain", "sft", "dpo", "kto", "ppo")  # the stages that leave one
# Beside a policy, and of no use elsewhere.
OURS = ("record.json", "*.jsonl", "value_head.safetensors", "critic", "steps")


def export(run: Path, target: Path, merge: bool) -> None:
    """Written aside, then renamed: a folder that is there is whole."""
    stage, model = finished(run)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: is there already; say a folder that is not")
    from prefsweep.models.adapters import is_adapted

    aside = target.with_name(f".{target.name}.aside")
    shutil.rmtree(aside, ignore_errors=True)
    if not is_adapted(stage):
        shutil.copytree(stage, aside, ignore=shutil.ignore_patterns(*OURS))
    elif merge:
        save_merged(model, stage, aside)
    else:
        copy_adapters(model, stage, aside)
    if target.is_dir():
        target.rmdir()
    aside.rename(target)


def finished(folder: Path) -> tuple[Path, ModelConfig]:
    """The folder of the stage whose policy it is, and the model it began with; of a run, its result's."""
    for file, read in (("run.json", result_of), ("record.json", of_stage)):
        if (folder / file).is_file():
            try:
                told = json.loads((folder / file).read_text())
            except ValueError as error:
                raise UserError(f"{folder / file}: cannot be read ({error}); run it again") from error
            return read(folder, told)
    raise UserError(f"{folder}: holds no run.json; say the folder of a run, as in outputs/runs/NAME, or of a stage")


def of_stage(stage: Path, record: dict[str, Any]) -> tuple[Path, ModelConfig]:
    from prefsweep.models.adapters import BASE, is_adapted

    if record["stage"] not in POLICIES:
        raise UserError(f"{stage}: a {record['stage']} stage leaves no policy; there are: {', '.join(POLICIES)}")
    model = record["sections"]["model"]
    if is_adapted(stage) and model.get("path") is not None and not (stage / BASE).is_dir():
        raise UserError(
            f"{stage}: its adapters stand on a local model, of which a stage knows the content alone; say the folder "
            "of its run"
        )
    return stage, model_config(model)


def model_config(found: dict[str, Any]) -> ModelConfig:
    return ModelConfig(id=found.get("id"), revision=found.get("revision"), path=found.get("path"))


def result_of(run: Path, told: dict[str, Any]) -> tuple[Path, ModelConfig]:
    config, role = told["config"], told["config"]["method"]["result"]
    role = config["model"]["base"] if role == "base" else role
    if role not in told["stages"]:
        raise UserError(f"{run}: its policy is the model as it came; there is nothing to export")
    stage = Path(config["runtime"]["outputs"]) / "stages" / role.partition("/")[0] / told["stages"][role]
    if not (stage / "record.json").is_file():
        raise UserError(
            f"{run}: its stage {role} is not in {stage} (status: {told['status']}); stand where it ran, or run it again"
        )
    return stage, model_config(config["model"])


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
    if model.path is not None:
        settings |= {"base_model_name_or_path": str(Path(model.path).resolve()), "revision": None}
    else:
        settings |= {"base_model_name_or_path": model.id, "revision": model.revision}
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")
