"""The loop of an on-policy stage: a trainer's iterations with history, tables, validation, checkpoints and a result.

A guard's trip is a result: training stops, the state before it is the stage's, and `diverged` in its metrics says why.
Beside the policy are left `rollouts.jsonl`, some of the training completions every `runtime.log_every` iterations, and
`validation.jsonl`, every completion of each validation, for any scorer to read afterwards; with a critic also
`value_head.safetensors`, and `critic/` where the critic has a trunk of its own.

Departure: no independent scorer runs beside the reward. It reads `validation.jsonl` when training is done, so the judge
of a table has no way into what is trained, and its memory is not needed while the policy's is.

One step of the history is one iteration: a batch of completions and its updates. As elsewhere,
`runtime.resume_checkpoint_every` counts optimiser steps.
"""

import shutil
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tqdm.auto import tqdm

from prefsweep.config.stages import OnPolicyConfig
from prefsweep.data.truncation import Ids
from prefsweep.pipeline.files import atomic
from prefsweep.pipeline.history import History, Row
from prefsweep.pipeline.stage import Context
from prefsweep.ppo.cost import CostTracker
from prefsweep.ppo.guards import TrippedError
from prefsweep.ppo.rollout import Rollouts
from prefsweep.ppo.update import Metrics
from prefsweep.stages.callbacks import Checkpoints, save
from prefsweep.stages.training import checkpoints, step_of

SHOWN = 8  # training completions in a table
NEAR = 0.2  # of its target: a KL farther off moves the coefficient at the controller's bound, however far it is


@dataclass
class Loop:
    """Runs a trainer's iterations in `context` and leaves the result in `folder`."""

    config: OnPolicyConfig
    costs: CostTracker
    held_out: list[Ids]
    tokenizer: Any
    folder: Path
    context: Context

    def __post_init__(self) -> None:
        self.trainer = self.costs.trainer
        self.writes = self.trainer.accelerator.is_main_process  # of several processes the first alone
        self.tables = {name: History(self.context.checkpoints / f"{name}.jsonl") for name in ("rollouts", "validation")}
        self.states = Checkpoints(self.config, self.context)

    def run(self) -> dict[str, Any]:
        """Train from where a killed build stopped; return the stage's metrics."""
        self.resume()
        diverged: dict[str, Any] = {}
        try:
            self.iterate()
            if self.config.evaluate_every is None or self.config.iterations % self.config.evaluate_every:
                self.validate()  # the loop did not end on a validation
        except TrippedError as trip:
            diverged = {"diverged": f"{self.config.stage_name}: {trip}"}
        best = self.config.checkpoint == "best" and not diverged  # after a trip the last state is the result
        validation = {}
        if self.writes:
            validation = self.states.export(best, self.save, self.folder)
            for table in self.tables.values():
                if table.path.is_file():
                    shutil.copy(table.path, self.folder)
        iterations = self.trainer.iteration
        episodes = iterations * self.config.batch_size
        return {"iterations": iterations, "episodes": episodes, **validation, **self.missed_target(), **diverged}

    def missed_target(self) -> dict[str, str]:
        """Return a warning where `adaptive_kl_target` is set and no iteration's KL came near it.

        Below .8 of the target, and above 1.2, the controller does not know how far off it is: every target that is
        never nearer gives one and the same training.
        """
        target, kls = self.config.adaptive_kl_target, [row["kl"] for row in self.context.history.rows() if "kl" in row]
        if target is None or not kls or any(abs(kl - target) <= NEAR * target for kl in kls):
            return {}
        nearest, name = min(kls, key=lambda kl: abs(kl - target)), self.config.stage_name
        missed = f"KL was never within {NEAR:.0%} of adaptive_kl_target={target:g} (nearest {nearest:.3g})"
        return {"warning": f"{name}: {missed}; lower stages.{name}.adaptive_kl_horizon"}

    def resume(self) -> None:
        saved = checkpoints(self.context.checkpoints)
        if saved:
            state = torch.load(saved[-1], map_location="cpu")
            self.trainer.restore(state)
            self.context.cost.restore(state["counts"])
        if self.writes:
            for rows in (self.context.history, *self.tables.values()):
                rows.rewind(step_of(saved[-1]) if saved else -1)

    def iterate(self) -> None:
        """Run the iterations that are left, or until a guard trips."""
        trainer, config = self.trainer, self.config
        total = {"initial": trainer.iteration, "total": config.iterations}
        disable = None if self.context.runtime.progress and self.writes else True  # None: only on a terminal
        with tqdm(desc=config.stage_name, unit="iteration", disable=disable, leave=False, **total) as bar:
            while trainer.iteration < config.iterations:
                started = time.monotonic()
                metrics, rollouts, cost = self.costs.iterate()
                self.context.cost.add(**cost)
                rate = config.batch_size / (time.monotonic() - started)
                self.record(metrics, rollouts, rate)
                bar.update()
                bar.set_postfix_str(f"{rate:.0f} episodes/s, score {metrics['score/mean']:.3f}, KL {metrics['kl']:.2f}")

    def record(self, metrics: Metrics, rollouts: Rollouts, rate: float) -> None:
        """Log an iteration, validate where it is time, and save states."""
        step, every = self.trainer.iteration, self.config.evaluate_every
        if self.writes:
            history = self.context.history
            history.append(step, metrics)
            history.announce(step, {"episodes_per_second": rate})
            if step == 1 or step % self.context.runtime.log_every == 0:
                history.announce(step, {"rollouts": self.tabulate("rollouts", rollouts, SHOWN)})
        if every is not None and step % every == 0:
            self.validate()
        if self.writes:
            self.states.trained(step, self.save)
            if self.checkpoint_is_due(step):
                self.write_checkpoint()

    def checkpoint_is_due(self, iteration: int) -> bool:
        """Return whether the optimiser passed a multiple of `runtime.resume_checkpoint_every` in this iteration."""
        config, every = self.config, self.context.runtime.resume_checkpoint_every
        steps = config.epochs * config.batch_size // config.minibatch_size
        return bool(iteration * steps // every > (iteration - 1) * steps // every)

    def validate(self) -> None:
        metrics, rollouts = self.trainer.validate(self.held_out)
        if not self.writes:
            return
        step, cost = self.trainer.iteration, self.context.cost
        self.context.history.append(
            step, {f"validation/{metric}": value for metric, value in metrics.items()} | cost.row()
        )
        cost.reached(step)
        self.tabulate("validation", rollouts, len(self.held_out))
        self.states.validated(step, self.save)

    def tabulate(self, table: str, rollouts: Rollouts, count: int) -> list[Row]:
        """Append the first rollouts to a table; return the rows."""
        step = self.trainer.iteration
        values = rollouts.ended.tolist(), rollouts.scores.tolist()
        columns = zip(rollouts.prompts, rollouts.completions, *values, strict=True)
        names = ("prompt", "completion", "ended", "score")
        rows = [dict(zip(names, row, strict=True)) for row in islice(columns, count)]
        for row in rows:
            self.tables[table].append(step, row)
        return [{"step": step, **row} for row in rows]

    def write_checkpoint(self) -> None:
        """Write the trainer's whole state; the older checkpoints go once it is there."""
        with atomic(self.context.checkpoints / f"checkpoint-{self.trainer.iteration}") as temporary:
            torch.save(self.trainer.state() | {"counts": self.context.cost.counts}, temporary)
        for older in checkpoints(self.context.checkpoints)[:-1]:
            older.unlink()

    def save(self, folder: Path) -> None:
        """Write the policy as a plain model folder, and the critic beside it."""
        actor = self.trainer.model
        save(actor.policy, self.tokenizer, folder)
        if actor.value_head is not None:
            save_file(actor.value_head.state_dict(), folder / "value_head.safetensors")
        if actor.critic is not None:
            actor.critic.save_pretrained(folder / "critic")
