"""Callbacks of a training loop: history, checkpoints, progress bar."""

import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback

from prefsweep.config.stage import TrainingConfig
from prefsweep.config.stages import OnPolicyConfig
from prefsweep.models.adapters import has_adapters, save_adapters
from prefsweep.pipeline.files import atomic, link
from prefsweep.pipeline.stage import Context

# How TRL and transformers name a metric, and how the history does; names without an entry stay as they are.
RENAMED = {
    "eval_": "validation/",
    "rewards/accuracies": "accuracy",
    "rewards/margins": "margin",  # and margins_nats: margin_nats
    "rewards/chosen": "reward/chosen",
    "rewards/rejected": "reward/rejected",
}
# Times are not reproducible, and TRL's token counter restarts on resume.
DROPPED = ("runtime", "per_second", "total_flos", "num_tokens", "train_loss")
BEST, STEPS = "best", "steps"  # folders of the states that are kept
Save = Callable[[Path], None]


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


class Checkpoints:
    """The states of a training that outlive it: the one that validated best, and one every `save_every` steps.

    One rule for every method. Which is best is read back from the history, so that a resumed run keeps the same state
    as an undisturbed one. All lie with the checkpoints until the stage is done, so a killed run loses none and
    overwrites those it repeats.
    """

    def __init__(self, config: TrainingConfig | OnPolicyConfig, context: Context):
        self.config = config
        self.history = context.history
        self.folder = context.checkpoints
        self.metric = f"validation/{config.best_by}"

    def validations(self) -> list[dict[str, Any]]:
        return [row for row in self.history.rows() if self.metric in row]

    def best(self) -> dict[str, Any]:
        """Return the first of the best validations; NaN is never the best."""
        return max(self.validations(), key=self.value)

    def value(self, row: dict[str, Any]) -> float:
        value = float(row[self.metric]) * (-1 if self.config.best_by == "loss" else 1)
        return -math.inf if math.isnan(value) else value

    def trained(self, step: int, save: Save) -> None:
        """Keep the state after `step`, which `save` writes, where it is one of the periodic ones."""
        if self.config.save_every is not None and step % self.config.save_every == 0:
            self.keep(f"{STEPS}/{step}", save)

    def validated(self, step: int, save: Save) -> None:
        """Keep the state, in place of the one that was best until now, where the validation at `step` is the best."""
        if self.config.checkpoint == "best" and self.best()["step"] == step:
            self.keep(BEST, save)

    def keep(self, name: str, save: Save) -> None:
        with atomic(self.folder / name) as temporary:
            save(temporary)

    def export(self, best: bool, save: Save, folder: Path) -> dict[str, Any]:
        """Leave in the stage's folder the best state, or the last, which `save` writes, beside the periodic ones.

        Return the state's validation metrics with its step; none where training stopped before the first validation.
        """
        if best:
            shutil.copytree(self.folder / BEST, folder, copy_function=link, dirs_exist_ok=True)
        else:
            save(folder)
        if (self.folder / STEPS).is_dir():
            unfinished = shutil.ignore_patterns(".*")
            shutil.copytree(self.folder / STEPS, folder / STEPS, copy_function=link, ignore=unfinished)
        if not (rows := self.validations()):
            return {}
        row = self.best() if best else rows[-1]
        return {name: value for name, value in row.items() if name == "step" or name.startswith("validation/")}


class CheckpointCallback(Checkpoints, TrainerCallback):
    """Keep the states of one of TRL's trainers."""

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.trained(state.global_step, partial(save, rest["model"], rest["processing_class"]))

    def on_evaluate(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.validated(state.global_step, partial(save, rest["model"], rest["processing_class"]))


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a plain transformers folder, or adapters with the weights that they belong to."""
    if has_adapters(model):
        save_adapters(model, folder)
    else:
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class Progress(TrainerCallback):
    """Show a progress bar on a terminal."""

    bar: Any

    def __init__(self, name: str, shown: bool):
        self.name = name
        self.disable = None if shown else True  # None: tqdm shows it on a terminal only

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        start = {"initial": state.global_step, "total": state.max_steps}
        self.bar = tqdm(desc=self.name, unit="step", disable=self.disable, leave=False, **start)

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        if logs and "loss" in logs:
            self.bar.set_postfix_str(f"loss {float(logs['loss']):.3f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.bar.close()
