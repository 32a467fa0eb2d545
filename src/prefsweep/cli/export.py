"""prefsweep export: the policy of a run or a stage as a folder for transformers, or for peft where it is adapters."""

import json
import shutil
from pathlib import Path
from typing import Any

from prefsweep.config.schema import ModelConfig
from prefsweep.config.stage import STAGES, load_stages
from prefsweep.errors import UserError
from prefsweep.pipeline.files import atomic, write_json
from prefsweep.pipeline.store import RECORD, stage_folder

# Files of a policy's folder that only prefsweep reads.
INTERNAL = (RECORD, "*.jsonl", "value_head.safetensors", "critic", "steps")


def export(run: Path, target: Path, merge: bool) -> None:
    """Write the policy of the run (or stage) in the folder `run` to `target`, which must be new or empty."""
    stage, model, stop = find_policy(run)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: exists already; name a new folder")
    from prefsweep.models.adapters import is_adapted
    from prefsweep.models.loading import load_policy, load_tokenizer

    with atomic(target) as temporary:
        if not is_adapted(stage):
            shutil.copytree(stage, temporary, ignore=shutil.ignore_patterns(*INTERNAL))
            write_stop_strings(temporary, stop)
            return
        if merge:
            load_policy(model, stage).save_pretrained(temporary)
            write_stop_strings(temporary, stop)
        else:
            copy_adapters(model, stage, temporary)
        load_tokenizer(model, stage).save_pretrained(temporary)


def write_stop_strings(folder: Path, stop: list[str]) -> None:
    """Let transformers end a completion where ours do: `model.generate(..., tokenizer=tokenizer)` reads them."""
    if stop:
        path = folder / "generation_config.json"
        settings = json.loads(path.read_text()) if path.is_file() else {}
        write_json(path, settings | {"stop_strings": stop})


def find_policy(folder: Path) -> tuple[Path, ModelConfig, list[str]]:
    """Return the folder of the stage that trained the policy, the model that its run began with, and where completions
    end in its dataset's format."""
    for name, find in (("run.json", policy_of_run), (RECORD, policy_of_stage)):
        if (folder / name).is_file():
            try:
                record = json.loads((folder / name).read_text())
            except ValueError as error:
                raise UserError(f"{folder / name}: cannot be read ({error}); run it again") from error
            stage, sections = find(folder, record)
            names = {name: sections["model"].get(name) for name in ("id", "revision", "path")}
            return stage, ModelConfig(**names), sections.get("dataset", {}).get("stop", [])
    raise UserError(f"{folder}: holds no run.json; name the folder of a run, as in outputs/runs/NAME, or of a stage")


def policy_of_run(run: Path, record: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    config, role = record["config"], record["inputs"].get("policy")
    if role is None:
        raise UserError(f"{run}: its policy is the model as it was downloaded; there is nothing to export")
    stage = stage_folder(Path(config["runtime"]["outputs"]), role, record["stages"][role])
    if not (stage / RECORD).is_file():
        missing = f"its stage {role} is not in {stage} (status: {record['status']})"
        raise UserError(f"{run}: {missing}; go to the folder where it ran, or run it again")
    return stage, config


def policy_of_stage(stage: Path, record: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    from prefsweep.models.adapters import BASE, is_adapted

    load_stages()
    if record["stage"] in STAGES and not STAGES[record["stage"]].leaves_policy:
        raise UserError(f"{stage}: a {record['stage']} stage leaves no policy; name one that trains it, or the run")
    model = record["sections"]["model"]
    if is_adapted(stage) and model.get("path") is not None and not (stage / BASE).is_dir():
        raise UserError(f"{stage}: records no path of the model under its adapters; name the folder of the run")
    return stage, record["sections"]


def copy_adapters(model: ModelConfig, stage: Path, folder: Path) -> None:
    """Copy the adapters of one stage, which others can load over the same initial model."""
    from prefsweep.models.adapters import BASE, stack

    if len(stack(stage)) > 1 or (stage / BASE).is_dir():
        raise UserError(f"{stage}: its adapters belong to weights that the run trained; add --merge to write both")
    (adapters,) = stack(stage)
    shutil.copytree(adapters, folder)
    settings = json.loads((folder / "adapter_config.json").read_text())
    name, revision = (str(Path(model.path).resolve()), None) if model.path else (model.id, model.revision)
    write_json(folder / "adapter_config.json", settings | {"base_model_name_or_path": name, "revision": revision})
