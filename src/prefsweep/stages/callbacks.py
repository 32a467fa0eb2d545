"""What watches a training loop: the history, the choice of a checkpoint, the progress bar."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback

from prefsweep.config.stage import TrainingConfig
from prefsweep.models.adapters import has_adapters, save_adapters
from prefsweep.pipeline.files import link
from prefsweep.pipeline.stage import Context

# TRL's and transformers' words → ours; what is not here and not dropped keeps its name.
NAMES = {
    "eval_": "validation/",
    "rewards/accuracies": "accuracy",
    "rewards/margins": "margin",
    "rewards/chosen": "reward/chosen",
    "rewards/rejected": "reward/rejected",
}
# Times are not reproducible, and TRL's token counter restarts on resume.
DROPPED = ("runtime", "per_second", "total_flos", "num_tokens", "train_loss")


def renamed(logs: dict[str, Any]) -> dict[str, float]:
    kept = {}
    for name, value in logs.items():
        if isinstance(value, (int, float)) and not any(word in name for word in DROPPED):
            for theirs, ours in NAMES.items():
                name = name.replace(theirs, ours)
            kept[name] = value
    return kept


class Reporter(TrainerCallback):
    """Each row of logs into the history; a validation's with what the steps up to it have cost."""

    def __init__(self, context: Context):
        self.context = context

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        if metrics := renamed(logs or {}):
            if any(name.startswith("validation/") for name in metrics):
                metrics |= self.context.cost.row()
                self.context.cost.reached(state.global_step)
            self.context.history.append(state.global_step, metrics)


class Choice:
    """Which state is a training's result, by validation: the same rule for every method.

    All it knows is read back from the history, so that a resumed run chooses as an undisturbed one.
    """

    def __init__(self, best_by: str, context: Context):
        self.history = context.history
        self.best_folder: Path = context.checkpoints / "best"
        self.metric = f"validation/{best_by}"
        self.sign = -1.0 if best_by == "loss" else 1.0

    def validations(self) -> list[dict[str, Any]]:
        return [row for row in self.history.rows() if self.metric in row]

    @property
    def last_step(self) -> int:
        """Of the last validation; −1 before the first."""
        rows = self.validations()
        return rows[-1]["step"] if rows else -1

    def best(self) -> dict[str, Any]:
        """The first of the best validations; one that is not a number is never the best."""
        return max(self.validations(), key=self.value)

    def value(self, row: dict[str, Any]) -> float:
        value = self.sign * float(row[self.metric])
        return -math.inf if math.isnan(value) else value

    def keep(self, save: Callable[[Path], None]) -> None:
        """What `save` writes is the best state from now on."""
        replace(self.best_folder, save)

    def metrics(self, best: bool) -> dict[str, Any]:
        """The validation of the state that is kept."""
        row = dict(self.best() if best else self.validations()[-1])
        step = row.pop("step")
        return {"step": step, **{name: value for name, value in row.items() if name.startswith("validation/")}}


STEPS = "steps"


class PeriodicCheckpoints:
    """States kept while training, for whoever wants one that is not the result: `steps/<step>` of the stage.

    They lie with the checkpoints until the stage is done, so a killed run loses none; one that it repeats it replaces.
    """

    def __init__(self, every: int | None, context: Context):
        self.every = every
        self.folder = context.checkpoints / STEPS

    def keep(self, step: int, save: Callable[[Path], None]) -> None:
        if self.every is not None and step % self.every == 0:
            self.folder.mkdir(exist_ok=True)
            replace(self.folder / str(step), save)

    def export_to(self, folder: Path) -> None:
        """At the end, into the stage's own folder."""
        if self.folder.is_dir():
            shutil.copytree(self.folder, folder / self.folder.name, copy_function=link)


def replace(folder: Path, save: Callable[[Path], None]) -> None:
    """What `save` writes, written aside and renamed: what is there is whole."""
    aside = folder.with_name(f".{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    save(aside)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)


class CheckpointCallback(Choice, TrainerCallback):
    """Keeps states of one of TRL's trainers: the scheduled ones, and the best; stops when that stays unbeaten."""

    def __init__(self, config: TrainingConfig, context: Context):
        super().__init__(config.best_by, context)
        self.config = config
        self.schedule = PeriodicCheckpoints(config.save_every, context)

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.schedule.keep(state.global_step, lambda folder: save(rest["model"], rest["processing_class"], folder))

    def on_evaluate(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        rows, best = self.validations(), self.best()
        if self.config.checkpoint == "best" and best["step"] == state.global_step:
            self.keep(lambda folder: save(rest["model"], rest["processing_class"], folder))
        waited = sum(row["step"] > best["step"] for row in rows)
        if self.config.patience is not None and waited >= self.config.patience:
            control.should_training_stop = True


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """A plain transformers folder, or adapters; with what else the model is made of beside it."""
    if has_adapters(model):
        save_adapters(model, folder)
    else:
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class Progress(TrainerCallback):
    """A bar where there is a terminal."""

    def __init__(self, name: str, shown: bool):
        self.name = name
        self.disable = None if shown else True  # None: only where there is a terminal
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc=self.name,
            unit="step",
            disable=self.disable,
            leave=False,
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        if self.bar is not None and logs and "loss" in logs:
            self.bar.set_postfix_str(f"loss {float(logs['loss']):.3f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.bar.close()
