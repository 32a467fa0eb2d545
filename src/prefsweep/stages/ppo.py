"""ppo: proximal policy optimisation against a reward, from the policy it is given, which is also its reference.

A guard's trip is a result: training stops, the state before it is the stage's, and `diverged` in its metrics says why.
Beside the policy are left `value_head.safetensors` (and `critic/`, where the critic has a trunk of its own);
`rollouts.jsonl`, some of the training answers every `runtime.log_every` iterations; `validation.jsonl`, every answer
of each validation, for any scorer to read afterwards.

Departure: no independent scorer runs beside the learned one. It reads `validation.jsonl` when training is done, so the
judge of a table has no way into what is trained, and its memory is not needed while the policy's is.

One step of the history is one iteration: a batch of completions and its updates. As elsewhere,
`runtime.resume_checkpoint_every` counts optimiser steps.
"""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import save_file
from tqdm.auto import tqdm
from transformers import AutoModel, PreTrainedModel

from prefsweep.config.schema import DatasetConfig, ModelConfig, RuntimeConfig, ScorerConfig, TrainedConfig
from prefsweep.config.stages import PPOConfig
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.sources import load
from prefsweep.data.truncation import Ids
from prefsweep.data.views import encode_prompts
from prefsweep.errors import UserError
from prefsweep.models.heads import REWARD
from prefsweep.models.loading import load_fp32, load_learner, load_policy, load_tokenizer
from prefsweep.models.scorers import load_scorer
from prefsweep.pipeline.files import link
from prefsweep.pipeline.history import History, Row
from prefsweep.pipeline.stage import Context
from prefsweep.ppo.cost import CostTracker
from prefsweep.ppo.guards import TrippedError
from prefsweep.ppo.rollout import Rollouts, Score, TextCodec, room
from prefsweep.ppo.trainer import Task, Trainer
from prefsweep.ppo.update import Metrics
from prefsweep.stages import distributed
from prefsweep.stages.callbacks import Choice, PeriodicCheckpoints, save
from prefsweep.stages.generate import distinct_prompts
from prefsweep.stages.training import checkpoints, step_of

SHOWN = 8  # training answers in a table


def run(
    config: PPOConfig,
    *,
    model: ModelConfig,
    dataset: DatasetConfig,
    reward: ScorerConfig,
    folder: Path,
    context: Context,
    policy: Path | None = None,
    reward_model: Path | None = None,
) -> dict[str, Any]:
    if isinstance(reward, TrainedConfig):
        trained = reward_model or Path(str(reward.path))
        check_reward(config, json.loads((trained / REWARD).read_text())["metrics"])
    if distributed.wanted(context):
        sections = {"config": config, "model": model, "dataset": dataset, "reward": reward}
        inputs = {"policy": policy, "reward_model": reward_model}
        return distributed.run(run, {**sections, **inputs, "folder": folder}, context)
    accelerator = new_accelerator(context.runtime)
    tokenizer = load_tokenizer(model, policy)
    scorer = load_scorer(reward, accelerator.device, reward_model)
    examples = {split: load(dataset, split, tokenizer) for split in ("train", "validation")}
    queries = {split: prompts_of(found, tokenizer) for split, found in examples.items()}
    task = make_task(config, model, policy, reward_model, tokenizer, scorer.score, queries["train"], accelerator.device)
    if context.runtime.gradient_checkpointing:
        task.policy.gradient_checkpointing_enable({"use_reentrant": False})
    trainer = Trainer(config, task, accelerator, context.runtime.micro_batch, context.runtime.forward_batch)
    costs = CostTracker(trainer, scorer, buys_labels=not isinstance(reward, TrainedConfig))
    held_out = queries["validation"][: config.validation_prompts]
    metrics = Optimisation(config, costs, held_out, tokenizer, folder, context).run()
    return metrics | {"prompts_truncated": truncated(config, queries["train"])} | examples["train"].metrics()


def check_reward(config: PPOConfig, found: dict[str, float]) -> None:
    """Its own validation decides. The reward model is kept: lowering a gate trains nothing again."""
    if config.min_accuracy == 0 and not config.must_beat_length:
        return
    if not found:
        raise UserError(
            "reward.path: a state kept while a reward model was trained, which nothing has measured; take the stage's "
            "own folder, or say stages.ppo.min_accuracy=0 stages.ppo.must_beat_length=false to take it as it is"
        )
    accuracy, by_length = found["validation/accuracy"], found["validation/length_accuracy"]
    if accuracy < config.min_accuracy:
        raise UserError(
            f"stages.ppo.min_accuracy={config.min_accuracy}: the reward model ranks {accuracy:.3f} of the "
            "validation pairs rightly; train it longer or on more pairs, or lower this to take it as it is"
        )
    if config.must_beat_length and accuracy <= by_length:
        raise UserError(
            f"stages.ppo.must_beat_length=true: the reward model ranks {accuracy:.3f} of the validation pairs rightly, "
            f"and length alone {by_length:.3f}; train it longer, or say false to take it as it is"
        )


def new_accelerator(runtime: RuntimeConfig) -> Any:
    """As one process, or as one of several that `accelerate launch` started. Precision is `loading.autocast`'s."""
    AcceleratorState._reset_state(reset_partial_state=True)  # an earlier stage's trainer may have chosen another device
    return Accelerator(cpu=runtime.device == "cpu", mixed_precision="no")


def prompts_of(examples: Sequence[PreferenceExample], tokenizer: Any) -> list[Ids]:
    return encode_prompts([example.prompt for example in distinct_prompts(examples)], tokenizer)


def truncated(config: PPOConfig, queries: list[Ids]) -> int:
    """How many lose their beginning: nothing of those of which a few first tokens are asked."""
    return 0 if config.query_tokens is not None else sum(len(query) > room(config) for query in queries)


def make_task(
    config: PPOConfig,
    model: ModelConfig,
    policy: Path | None,
    reward_model: Path | None,
    tokenizer: Any,
    score: Score,
    queries: list[Ids],
    where: torch.device,
) -> Task:
    learner = load_learner(config, model, policy).to(where)
    positions = learner.config.max_position_embeddings
    if config.max_length > positions:
        raise UserError(f"stages.ppo.max_length={config.max_length}: the policy has {positions} positions")
    reference = learner  # its adapters off
    if not config.lora:
        reference = load_policy(model, policy).to(where).eval().requires_grad_(False)
    critic = None
    if config.critic == "separate":
        critic = load_policy(model, policy).base_model.to(where)
    if config.critic == "reward":
        critic = trunk_of(reward_model, learner).to(where)

    def decode(rows: list[Ids]) -> list[str]:
        texts: list[str] = tokenizer.batch_decode(rows, skip_special_tokens=True)
        return texts

    codec = TextCodec(tokenizer.eos_token_id, tokenizer.pad_token_id, decode)
    return Task(learner, reference, critic, codec, score, queries)


def trunk_of(reward_model: Path | None, policy: PreTrainedModel) -> PreTrainedModel:
    """The reward model without its head, which must read the policy's own tokens."""
    if reward_model is None:
        raise UserError("stages.ppo.critic=reward: this method trains no reward model; say shared or separate")
    trunk = load_fp32(AutoModel, str(reward_model), {}, "reward.path")
    names = ("model_type", "vocab_size")
    if any(getattr(trunk.config, name) != getattr(policy.config, name) for name in names):
        raise UserError(
            "stages.ppo.critic=reward: the reward model is of another architecture or vocabulary than the policy; "
            "say shared or separate"
        )
    return trunk


class Optimisation:
    """A trainer's iterations with what surrounds them: history, tables, validation, checkpoints, the result."""

    def __init__(
        self,
        config: PPOConfig,
        costs: CostTracker,
        held_out: list[Ids],
        tokenizer: Any,
        folder: Path,
        context: Context,
    ):
        self.config = config
        self.costs = costs
        self.trainer = trainer = costs.trainer
        self.held_out = held_out
        self.tokenizer = tokenizer
        self.folder = folder
        self.context = context
        self.main = trainer.accelerator.is_main_process  # who alone writes
        self.tables = {name: History(context.checkpoints / f"{name}.jsonl") for name in ("rollouts", "validation")}
        self.choice = Choice(config.best_by, context)
        self.schedule = PeriodicCheckpoints(config.save_every, context)

    def run(self) -> dict[str, Any]:
        # 1. where a killed build stopped, or the beginning
        self.resume()
        # 2. the loop, until its end or a guard
        diverged: dict[str, Any] = {}
        try:
            self.loop()
            # 3. a last validation, where the loop did not end on one
            if self.config.evaluate_every is None or self.config.iterations % self.config.evaluate_every:
                self.validate()
        except TrippedError as trip:
            diverged = {"diverged": f"ppo: {trip}"}
        # 4. the state that is the result: after a trip the last one, whatever `checkpoint` says
        best = self.config.checkpoint == "best" and not diverged
        if self.main:
            if best:
                shutil.copytree(self.choice.best_folder, self.folder, copy_function=link, dirs_exist_ok=True)
            else:
                self.save(self.folder)
            self.schedule.export_to(self.folder)
            for table in self.tables.values():
                if table.path.is_file():
                    shutil.copy(table.path, self.folder)
        validated = self.choice.metrics(best) if self.choice.last_step >= 0 else {}
        done = self.trainer.iteration
        return {"iterations": done, "episodes": done * self.config.batch_size, **validated, **diverged}

    def resume(self) -> None:
        found = checkpoints(self.context.checkpoints)
        if found:
            state = torch.load(found[-1], map_location="cpu")
            self.trainer.restore(state)
            self.context.cost.restore(state.get("counts", {}))
        if self.main:
            for rows in (self.context.history, *self.tables.values()):
                rows.rewind(step_of(found[-1]) if found else -1)

    def loop(self) -> None:
        trainer, config = self.trainer, self.config
        shown = None if self.context.runtime.progress and self.main else True  # None: only where there is a terminal
        with tqdm(
            total=config.iterations, initial=trainer.iteration, desc="ppo", unit="iteration", disable=shown, leave=False
        ) as bar:
            while trainer.iteration < config.iterations:
                started = time.monotonic()
                metrics, rollouts, cost = self.costs.iterate()
                self.context.cost.add(**cost)
                rate = config.batch_size / (time.monotonic() - started)
                self.after(metrics, rollouts, rate)
                bar.update()
                bar.set_postfix_str(f"{rate:.0f} episodes/s, score {metrics['score/mean']:.3f}, KL {metrics['kl']:.2f}")

    def after(self, metrics: Metrics, rollouts: Rollouts, rate: float) -> None:
        """What is told and kept of an iteration."""
        step, every = self.trainer.iteration, self.config.evaluate_every
        if self.main:
            history = self.context.history
            history.append(step, metrics)
            history.say(step, {"episodes_per_second": rate})
            if step == 1 or step % self.context.runtime.log_every == 0:
                history.say(step, {"rollouts": self.tabulate("rollouts", rollouts, SHOWN)})
        if every is not None and step % every == 0:
            self.validate()
        if self.main:
            self.schedule.keep(step, self.save)
        if self.save_is_due(step):
            self.write_checkpoint()

    def save_is_due(self, step: int) -> bool:
        """Whether the optimiser passed a multiple of `save_every` in this iteration."""
        config, every = self.config, self.context.runtime.resume_checkpoint_every
        a_step = config.epochs * config.batch_size // config.minibatch_size
        due: bool = step * a_step // every > (step - 1) * a_step // every
        return due

    def validate(self) -> None:
        found, rollouts = self.trainer.validate(self.held_out)
        if not self.main:
            return
        named = {f"validation/{name}": value for name, value in found.items()}
        self.context.history.append(self.trainer.iteration, named | self.context.cost.row())
        self.context.cost.reached(self.trainer.iteration)
        self.tabulate("validation", rollouts, len(self.held_out))
        if self.config.checkpoint == "best" and self.choice.best()["step"] == self.trainer.iteration:
            self.choice.keep(self.save)

    def tabulate(self, table: str, rollouts: Rollouts, count: int) -> list[Row]:
        columns = zip(rollouts.prompts, rollouts.completions, rollouts.scores.tolist(), strict=True)
        rows = [{"prompt": prompt, "completion": completion, "score": score} for prompt, completion, score in columns][
            :count
        ]
        for row in rows:
            self.tables[table].append(self.trainer.iteration, row)
        return [{"step": self.trainer.iteration, **row} for row in rows]

    def write_checkpoint(self) -> None:
        """Aside, then renamed; then the older ones go."""
        if not self.main:
            return
        aside = self.context.checkpoints / "aside.pt"
        torch.save(self.trainer.state() | {"counts": self.context.cost.counts}, aside)
        aside.rename(self.context.checkpoints / f"checkpoint-{self.trainer.iteration}")
        for older in checkpoints(self.context.checkpoints)[:-1]:
            older.unlink()

    def save(self, folder: Path) -> None:
        actor = self.trainer.model
        save(actor.policy, self.tokenizer, folder)
        save_file(actor.value_head.state_dict(), folder / "value_head.safetensors")
        if actor.critic is not None:
            actor.critic.save_pretrained(folder / "critic")
