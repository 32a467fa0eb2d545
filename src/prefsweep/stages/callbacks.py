"""Callbacks of a training loop: history, checkpoints, progress bar."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback

from prefsweep.config.stages import TrainingConfig
from prefsweep.models.adapters import has_adapters, save_adapters
from prefsweep.pipeline.files import atomic, link
from prefsweep.pipeline.stage import Context

# How TRL and transformers name a metric, and how the history does; names without an entry stay as they are.
RENAMED = {
    "eval_": "validation/",
    "rewards/accuracies": "accuracy",
    "rewards/margins": "margin",
    "rewards/chosen": "reward/chosen",
    "rewards/rejected": "reward/rejected",
}
# Times are not reproducible, and TRL's token counter restarts on resume.
DROPPED = ("runtime", "per_second", "total_flos", "num_tokens", "train_loss")
STEPS = "steps"  # the folder of a stage's periodic checkpoints


def history_metrics(logs: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a trainer's logs under the history's names, without those in `DROPPED`."""
    metrics = {}
    for name, value in logs.items():
        if isinstance(value, (int, float)) and not any(word in name for word in DROPPED):
            for trl_name, history_name in RENAMED.items():
                name = name.replace(trl_name, history_name)
            metrics[name] = value
    return metrics


class HistoryCallback(TrainerCallback):
    """Append each row of logs to the history; a validation's together with the cost of the steps up to it."""

    def __init__(self, context: Context):
        self.context = context

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        if metrics := history_metrics(logs or {}):
            if any(name.startswith("validation/") for name in metrics):
                metrics |= self.context.cost.row()
                self.context.cost.reached(state.global_step)
            self.context.history.append(state.global_step, metrics)


class BestCheckpoint:
    """The state of a training that validated best: one rule for every method.

    It is read back from the history, so that a resumed run keeps the same state as an undisturbed one.
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
        """The step of the last validation, or −1 before the first."""
        rows = self.validations()
        return rows[-1]["step"] if rows else -1

    def best(self) -> dict[str, Any]:
        """Return the first of the best validations; NaN is never the best."""
        return max(self.validations(), key=self.value)

    def value(self, row: dict[str, Any]) -> float:
        value = self.sign * float(row[self.metric])
        return -math.inf if math.isnan(value) else value

    def keep(self, save: Callable[[Path], None]) -> None:
        """Replace the best state by what `save` writes."""
        with atomic(self.best_folder) as temporary:
            save(temporary)

    def metrics(self, best: bool) -> dict[str, Any]:
        """Return the validation metrics of the best state, or of the last one, with its step."""
        row = dict(self.best() if best else self.validations()[-1])
        step = row.pop("step")
        return {"step": step, **{name: value for name, value in row.items() if name.startswith("validation/")}}


class PeriodicCheckpoints:
    """States of the policy kept every N steps beside the result: `steps/<step>` of the stage.

    They stay with the checkpoints until the stage is done, so a killed run loses none and overwrites those it repeats.
    """

    def __init__(self, every: int | None, context: Context):
        self.every = every
        self.folder = context.checkpoints / STEPS

    def keep(self, step: int, save: Callable[[Path], None]) -> None:
        if self.every is not None and step % self.every == 0:
            with atomic(self.folder / str(step)) as temporary:
                save(temporary)

    def export_to(self, folder: Path) -> None:
        """Link the states into the stage's folder."""
        if self.folder.is_dir():
            unfinished = shutil.ignore_patterns(".*")
            shutil.copytree(self.folder, folder / STEPS, copy_function=link, ignore=unfinished)


class CheckpointCallback(BestCheckpoint, TrainerCallback):
    """Keep the periodic and the best states of one of TRL's trainers, and stop it when its patience ends."""

    def __init__(self, config: TrainingConfig, context: Context):
        super().__init__(config.best_by, context)
        self.config = config
        self.periodic = PeriodicCheckpoints(config.save_every, context)

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.periodic.keep(state.global_step, lambda folder: save(rest["model"], rest["processing_class"], folder))

    def on_evaluate(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        rows, best = self.validations(), self.best()
        if self.config.checkpoint == "best" and best["step"] == state.global_step:
            self.keep(lambda folder: save(rest["model"], rest["processing_class"], folder))
        waited = sum(row["step"] > best["step"] for row in rows)
        if self.config.patience is not None and waited >= self.config.patience:
            control.should_training_stop = True


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a plain transformers folder, or adapters with the weights that they belong to."""
    if has_adapters(model):
        save_adapters(model, folder)
    else:
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class Progress(TrainerCallback):
    """Show a progress bar on a terminal."""

    def __init__(self, name: str, shown: bool):
        self.name = name
        self.disable = None if shown else True  # None: tqdm shows it on a terminal only
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
