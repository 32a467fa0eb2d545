"""What every training stage shares around TRL's trainers: their arguments, steps, checkpoints, history.

Departures from the trainers as they come:
- one dataloader item is one effective batch; it is split inside the step, each part weighted by what it holds, so the
  step does not depend on what fits in memory;
- a checkpoint is written under a temporary name and renamed, so it is complete, and only the newest is kept;
- a loss or gradient that is not finite stops the run before it reaches the weights;
- the history leaves out rows that a resumed run would repeat, and times.
"""

import json
import logging
import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PrinterCallback, Trainer, TrainingArguments

from prefsweep.config.schema import RuntimeConfig
from prefsweep.config.stage import TrainingConfig
from prefsweep.errors import DivergedError, UserError
from prefsweep.models.adapters import has_adapters, restore_adapters
from prefsweep.models.flops import training_flops
from prefsweep.models.loading import device
from prefsweep.models.memory_budget import plan
from prefsweep.models.precision import check_bf16
from prefsweep.pipeline.cost import Cost
from prefsweep.pipeline.files import remove, write_json
from prefsweep.pipeline.stage import Context
from prefsweep.stages.callbacks import CheckpointCallback, HistoryCallback, Progress, save
from prefsweep.stages.generation_callback import GenerateCompletionsCallback
from prefsweep.stages.micro_batches import Batch, parts_by_length

LOG = logging.getLogger(__name__)
SMALLEST = 64  # tokens of a part that is not halved any more
COUNTS = "counts.json"  # in a checkpoint: what the steps up to it have cost
OPTIMIZERS = {"adamw": "adamw_torch_fused", "rmsprop": "rmsprop"}  # config → transformers


def arguments(
    config: TrainingConfig, runtime: RuntimeConfig, rows: int, output: Path, is_checkpointed: bool
) -> dict[str, Any]:
    """Return the trainer's arguments for a config of `rows` training rows; what decides a number is always set."""
    check_bf16(config.precision, device(runtime))
    epochs_steps = math.ceil(config.epochs * math.ceil(rows / config.batch_size))
    steps = min(epochs_steps, config.max_steps or epochs_steps)
    return {
        "output_dir": str(output),
        "seed": config.seed,
        "data_seed": config.seed,
        "max_steps": steps,
        "per_device_train_batch_size": config.batch_size,
        "gradient_accumulation_steps": 1,
        "per_device_eval_batch_size": runtime.forward_batch,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": config.schedule,
        "warmup_steps": warmup(config, steps),
        "optim": OPTIMIZERS[config.optimizer],
        "weight_decay": config.weight_decay,
        "adam_beta2": config.adam_beta2,
        "max_grad_norm": config.max_grad_norm,
        "bf16": config.precision == "bf16",
        "fp16": False,
        "gradient_checkpointing": is_checkpointed,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},  # frozen embeddings start no graph
        "logging_steps": runtime.log_every,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": runtime.resume_checkpoint_every,
        "eval_strategy": "no" if config.evaluate_every is None else "steps",
        "eval_steps": config.evaluate_every,
        "use_cpu": device(runtime).type == "cpu",
        "dataloader_pin_memory": torch.cuda.is_available(),
        "report_to": "none",
        "disable_tqdm": True,
    }


def warmup(config: TrainingConfig, steps: int) -> int:
    """Return the steps of warm-up; refuse one after which nothing is left of the run's `steps`."""
    count = math.ceil(config.warmup_steps * (steps if config.warmup_steps < 1 else 1))
    if count >= steps > 1:
        setting = f"stages.{config.stage_name}.warmup_steps"
        reason = f"the stage has {steps} steps, so its learning rate would hardly reach its height"
        raise UserError(f"{setting}={config.warmup_steps:g}: {reason}; set a share of them, as in {setting}=0.1")
    return min(count, steps - 1)


class MicroBatchTrainerMixin(Trainer):
    """Mixed in before one of TRL's trainers, or used alone; the subclass defines how its batches split."""

    arguments_class: Any = TrainingArguments
    own_arguments: ClassVar[dict[str, Any]] = {}  # those that are the same in every stage with this trainer
    sequences_per_row = 1
    micro_batch: int | None  # rows, or pairs, in one forward and backward pass
    micro_tokens: int | None = None  # or so many tokens
    output: Path | None = None  # where a checkpoint is being written
    stage_name: str
    control: Any
    cost: Cost  # of the stage
    labels_per_row = 0.0  # preference labels in a training row that no earlier stage has counted

    @classmethod
    def build(
        cls,
        config: TrainingConfig,
        model: Any,
        tokenizer: Any,
        rows: Mapping[str, Dataset],
        context: Context,
        data_collator: Any = None,
        **settings: Any,
    ) -> Self:
        """Return a trainer on the rows of `train` and `validation`; `settings` are arguments beside the shared ones."""
        runtime = context.runtime
        model.to(device(runtime))
        longest = config.max_length * cls.sequences_per_row
        memory = plan(model, config.precision, runtime, longest, context.checkpoints)
        steps = len(rows["train"]), context.checkpoints
        shared = arguments(config, runtime, *steps, memory.gradient_checkpointing)
        trainer = cls(
            model=model,
            args=cls.arguments_class(**shared | cls.own_arguments | settings),
            data_collator=data_collator,
            train_dataset=rows["train"],
            eval_dataset=rows["validation"],
            processing_class=tokenizer,
        )
        trainer.micro_batch = None if memory.tokens else runtime.micro_batch
        trainer.micro_tokens, trainer.stage_name = memory.tokens, config.stage_name
        trainer.cost = context.cost
        return trainer

    def micro_batches(self, inputs: Batch) -> Iterator[tuple[Batch, float]]:
        """Yield the parts of an effective batch, with weights that sum to 1."""
        raise NotImplementedError

    def rows_of_parts(self, attention: Tensor) -> list[list[int]]:
        """Return the rows of each part of a batch, from the attention mask [B, L] of its rows."""
        tokens = (self.micro_tokens or 0) // self.sequences_per_row
        if self.micro_batch is not None:
            tokens = self.micro_batch * int(attention.sum(-1).max())
        return parts_by_length(attention, tokens, getattr(self.model, "backbone", self.model))

    def training_step(self, model: Any, inputs: Batch, num_items_in_batch: Any = None) -> Tensor:
        model.train()
        inputs = self._prepare_inputs(inputs)
        self.count(inputs)
        while (total := self.try_backward(model, inputs)) is None:
            self.restart_in_smaller_parts(model)
        if not torch.isfinite(total):
            self.stop_diverged("loss", float(total))
        return total

    def try_backward(self, model: Any, inputs: Batch) -> Tensor | None:
        """Return None if memory ran out and smaller parts may fit; what the failed pass held is freed on return."""
        try:
            return self.backward_parts(model, inputs)
        except torch.OutOfMemoryError:
            if self.micro_tokens is None or self.micro_tokens < SMALLEST:
                raise
            return None

    def backward_parts(self, model: Any, inputs: Batch) -> Tensor:
        """Leave the gradient of a batch in the model, and return its loss."""
        total = torch.zeros((), device=self.args.device)
        with self.accelerator.autocast():  # which casts each weight once, and not once a part
            for part, weight in self.micro_batches(inputs):
                loss = self.compute_loss(model, part) * weight
                with torch.autocast(self.args.device.type, enabled=False):
                    self.accelerator.backward(loss)
                total += loss.detach()
        return total

    def restart_in_smaller_parts(self, model: Any) -> None:
        """Forget what a step has computed, and halve the tokens of a part."""
        assert self.micro_tokens is not None
        self.micro_tokens //= 2
        LOG.warning("out of memory: from here on %d tokens in one pass; the step is the same", self.micro_tokens)
        model.zero_grad()
        torch.cuda.empty_cache()

    def report_validation(self, means: dict[str, float]) -> dict[str, float]:
        """Log a validation's metrics and tell the callbacks, as transformers' own `evaluate` does at its end."""
        metrics = {f"eval_{name}": value for name, value in means.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def count(self, inputs: Batch) -> None:
        """Count the step's tokens without padding, and the labels of the rows that it is the first to read."""
        tokens = int(inputs["attention_mask"].sum())
        self.cost.add(tokens_trained=tokens, flops=training_flops(self.model, tokens))
        first = self.state.global_step * self.args.per_device_train_batch_size
        before, after = (
            math.floor(self.labels_per_row * min(rows, len(self.train_dataset)))
            for rows in (first, first + self.args.per_device_train_batch_size)
        )
        self.cost.add(labels=after - before)

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        if not math.isfinite(float(norm)):
            self.stop_diverged("gradient norm", float(norm))
        return norm

    def stop_diverged(self, what: str, value: float) -> None:
        """Save a checkpoint and raise: before the optimiser step the weights are still those of the last finite one."""
        self._save_checkpoint(self.model, None)
        raise DivergedError(
            f"{self.stage_name}: the {what} was {value} at step {self.state.global_step + 1}; the state before it is "
            f"kept in {self.args.output_dir}. Lower stages.{self.stage_name}.learning_rate, or raise its warmup_steps"
        )

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.output or self.args.output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if has_adapters(self.model):
            restore_adapters(self.model, Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint under a temporary name, rename it, and delete the older ones."""
        folder = Path(self.args.output_dir)
        self.output = folder / ".writing"
        remove(self.output)
        Trainer._save_checkpoint(self, model, trial)  # TRL's own would write a model card beside it
        (written,) = self.output.iterdir()
        write_json(written / COUNTS, self.cost.counts)
        remove(folder / written.name)
        written.rename(folder / written.name)
        self.output.rmdir()
        self.output = None
        for older in checkpoints(folder)[:-1]:
            remove(older)


def checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints in a folder, oldest first."""
    return sorted(folder.glob("checkpoint-*"), key=step_of)


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def train(
    trainer: MicroBatchTrainerMixin,
    config: TrainingConfig,
    folder: Path,
    context: Context,
    completions_callback: GenerateCompletionsCallback | None = None,
) -> dict[str, Any]:
    """Train or resume, leave the state that `config.checkpoint` names in `folder`, and return the stage's metrics."""
    # 1. resume from the last checkpoint, if a killed build left one
    saved = checkpoints(context.checkpoints)
    start = saved[-1] if saved else None
    for history in (context.history, *([completions_callback.table] if completions_callback else [])):
        history.rewind(step_of(start) if start else -1)
    if start:
        context.cost.restore(json.loads((start / COUNTS).read_text()))
    # 2. replace transformers' callback that prints
    trainer.remove_callback(PrinterCallback)
    checkpoint_callback = CheckpointCallback(config, context)
    progress = Progress(config.stage_name, context.runtime.progress)
    for callback in (HistoryCallback(context), checkpoint_callback, completions_callback, progress):
        if callback is not None:
            trainer.add_callback(callback)
    # 3. the loop
    trainer.train(resume_from_checkpoint=str(start) if start else None)
    # 4. a last validation, where the loop did not end on one
    if all(row["step"] != trainer.state.global_step for row in checkpoint_callback.validations()):
        trainer.evaluate()
    # 5. the state that is the result
    validation = checkpoint_callback.export(
        config.checkpoint == "best", partial(save, trainer.model, trainer.processing_class), folder
    )
    if completions_callback is not None:
        completions_callback.export_to(folder)
    return {"steps": trainer.state.global_step, **validation}
