"""Proximal policy optimisation (Schulman et al. 2017) of a language model against a score, as in Ziegler et al. 2019.

An iteration completes a batch of queries, scores the completions, and updates policy and critic on them for a few
epochs:

1. draw the next queries, complete and score them;
2. before any step, by the update's own forward and on the first epoch's own micro-batches: log-probabilities and values
   of the policy, log-probabilities of the reference;
3. stop here if these are not what honest sampling gives;
4. rewards: the normalised score at the last token, the price of KL at each;
5. advantages and returns;
6. for each epoch, for each minibatch: one optimiser step;
7. adapt the KL coefficient.

Departures:
- step 2 is why the first minibatch's ratio is exactly 1, in bf16 too: numbers of the sampler's forward, with its cache
  and its other padding, would differ from the update's;
- all randomness is a function of (seed, iteration, row or epoch), so no generator has a state to lose;
- several processes share rows, not data: each completes, scores and differentiates its part of every batch, all hold
  the whole, and gradients are summed by one call. So whitening, KL and every decision are of the whole, and the split
  changes the order of additions and no more;
- what replaces the score of a completion without an end does so after normalisation, so that its size means something;
- an update whose approx-KL passes its bound is not made, and ends the iteration's epochs.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prefsweep.config.stages import PPOConfig
from prefsweep.models.loading import autocast
from prefsweep.models.logprobs import Ids
from prefsweep.ppo import tensors
from prefsweep.ppo.batches import Minibatch, Split, shuffled
from prefsweep.ppo.guards import check_rollouts
from prefsweep.ppo.policy import ActorCritic, reference_logprobs
from prefsweep.ppo.rollout import Rollouts, Sampler, Score, TextCodec
from prefsweep.ppo.tensors import Moments, masked_mean
from prefsweep.ppo.update import Metrics, Snapshot, Targets, Updater


@dataclass(frozen=True)
class Task:
    """What is optimised. `reference` is never trained, or is the policy itself, of which only the adapters are;
    `critic` is None for a value head on the policy's trunk."""

    policy: PreTrainedModel
    reference: PreTrainedModel
    critic: PreTrainedModel | None
    codec: TextCodec
    score: Score
    queries: list[Ids]


class Trainer:
    """The algorithm and its state: the models, the optimiser, the KL coefficient and the scale of the scores."""

    def __init__(self, config: PPOConfig, task: Task, accelerator: Any, micro_batch: int, forward_batch: int):
        self.config = config
        self.task = task
        self.accelerator = accelerator
        self.model = ActorCritic(task.policy, task.critic, config.temperature).train()
        self.sampler = Sampler(config, task.policy, task.codec, task.score, accelerator, forward_batch)
        self.updater = Updater(config, self.model, accelerator, task.codec.pad)
        self.split = Split(accelerator.process_index, accelerator.num_processes, micro_batch)
        self.iteration = 0  # how many are finished
        self.kl_coef = config.kl_coef
        self.moments = Moments()

    # ------------------------------------------------------------------------------------------- one iteration

    def iterate(self) -> tuple[Metrics, Rollouts]:
        """Make steps 1 to 7; raise `TrippedError` with the weights as they were before what tripped it."""
        config, iteration = self.config, self.iteration
        self.calibrate()
        # 1. completions and scores
        rows = range(config.batch_size)
        episodes = [iteration * config.batch_size + row for row in rows]
        rollouts = self.sampler([self.query(episode) for episode in episodes], [f"{iteration}/{row}" for row in rows])
        # 2. the policy, the critic and the reference, before any step
        epochs = [self.split.minibatches(config, iteration, epoch) for epoch in range(config.epochs)]
        before = self.score_rollouts(rollouts, epochs[0])
        # 3. honest?
        entropy = float(masked_mean(before.entropy, before.mask))
        check_rollouts(config, iteration + 1, rollouts.scores, before.kl, entropy)
        # 4. and 5.
        targets = self.targets(before, self.shape_scores(rollouts))
        # 6. the update
        update_metrics = self.updater.update(iteration, epochs, rollouts, before, targets)
        # 7. the KL coefficient
        metrics = self.metrics(rollouts, before, targets) | update_metrics
        if config.adaptive_kl_target is not None:
            self.kl_coef = tensors.next_kl_coef(
                self.kl_coef, metrics["kl"], config.adaptive_kl_target, config.adaptive_kl_horizon, config.batch_size
            )
        self.iteration += 1
        return metrics, rollouts

    def query(self, episode: int) -> Ids:
        """Return every query once in a shuffled order, then again in another."""
        passes, index = divmod(episode, len(self.task.queries))
        return self.task.queries[shuffled(f"{self.config.seed}/queries/{passes}", len(self.task.queries))[index]]

    def calibrate(self) -> None:
        """Fix the scale of scores, once, by the starting policy's completions of the first queries."""
        if self.config.score_normalisation == "start" and not self.moments.count:
            rows = range(self.config.normalisation_samples)
            self.moments.add(self.sampler([self.query(row) for row in rows], [f"start/{row}" for row in rows]).scores)

    @torch.no_grad()
    def score_rollouts(self, rollouts: Rollouts, minibatches: list[Minibatch]) -> Snapshot:
        """Return what policy, critic and reference give for every rollout, by the micro-batches of `minibatches`."""
        lengths = rollouts.lengths
        width = int(lengths.max())
        local = torch.zeros(4, len(lengths), width, device=lengths.device)
        for rows in (rows for minibatch in minibatches for rows in minibatch.micro_batches):
            batch = rollouts.batch(rows, self.task.codec.pad)
            with autocast(self.config.precision, lengths.device):
                output = self.model(batch)
                reference = reference_logprobs(self.task.reference, batch, self.config.temperature)
            assert output.entropy is not None  # nothing is differentiated here
            columns = torch.stack([output.logprobs, reference, output.values, output.entropy])
            local[:, rows, -batch.completion_mask.shape[1] :] = columns.where(batch.completion_mask, 0.0)
        # a row was computed by one process and is 0 in the others
        logprobs, reference, values, entropy = self.accelerator.reduce(local, "sum")
        mask = torch.arange(width, device=lengths.device)[None, :] >= width - lengths[:, None]
        return Snapshot(logprobs, reference, values, entropy, mask)

    def shape_scores(self, rollouts: Rollouts) -> Tensor:
        """Return scores [N] for the update: normalised, clipped, and then changed where the completion has no end."""
        config, scores = self.config, rollouts.scores
        if config.score_normalisation == "running":
            self.moments.add(scores)
        if config.score_normalisation != "none":
            scores = self.moments.normalised(scores)
        if config.score_clip is not None:
            scores = scores.clamp(-config.score_clip, config.score_clip)
        if config.missing_eos == "penalty":
            scores = torch.where(rollouts.ended, scores, scores - config.missing_eos_penalty)
        if config.missing_eos == "replace":
            scores = scores.where(rollouts.ended, -config.missing_eos_penalty)
        return scores

    def targets(self, before: Snapshot, scores: Tensor) -> Targets:
        """Return advantages and returns of the shaped scores [N]."""
        config = self.config
        rewards = tensors.token_rewards(scores, before.logprobs, before.reference, before.mask, self.kl_coef)
        if config.whiten_rewards:
            rewards = tensors.whiten(rewards, before.mask, keep_mean=True)
        advantages = tensors.gae(rewards, before.values, before.mask, config.gamma, config.gae_lambda)
        returns = advantages + before.values  # of the advantages as they are, before whitening
        if config.whiten_advantages:
            advantages = tensors.whiten(advantages, before.mask)
        return Targets(advantages, returns)

    # ------------------------------------------------------------------------------------------------- metrics

    def metrics(self, rollouts: Rollouts, before: Snapshot, targets: Targets) -> Metrics:
        """Return what the history says of the rollouts, as they were before the update."""
        return {
            "score/mean": float(rollouts.scores.mean()),
            "score/std": float(rollouts.scores.std(correction=0)),
            "score/median": float(rollouts.scores.median()),
            "score/truncated": float(rollouts.truncated.mean()),
            "kl": float(before.kl.mean()),
            "entropy": float(masked_mean(before.entropy, before.mask)),
            "kl_coef": self.kl_coef,
            "explained_variance": tensors.explained_variance(before.values, targets.returns, before.mask),
            "value/mean": float(masked_mean(before.values, before.mask)),
            "return/mean": float(masked_mean(targets.returns, before.mask)),
            "response/length": float(rollouts.lengths.float().mean()),
            "response/ended": float(rollouts.ended.float().mean()),
        }

    def validate(self, queries: list[Ids]) -> tuple[Metrics, Rollouts]:
        """Complete held-out queries, with equal draws each time. `objective` is score − KL at the configured price."""
        rollouts = self.sampler(queries, [f"validation/{row}" for row in range(len(queries))])
        kl = float(self.score_rollouts(rollouts, [self.split.minibatch(tuple(range(len(queries))))]).kl.mean())
        score = float(rollouts.scores.mean())
        scaled = float(self.moments.normalised(rollouts.scores).mean())
        return {"score": score, "kl": kl, "objective": scaled - self.config.kl_coef * kl}, rollouts

    # --------------------------------------------------------------------------------------------------- state

    def state(self) -> dict[str, Any]:
        """Return all that the next iteration depends on beside the config."""
        return {
            "model": {name: weight.detach() for name, weight in self.model.named_parameters() if weight.requires_grad},
            "optimizer": self.updater.optimizer.state_dict(),
            "iteration": self.iteration,
            "kl_coef": self.kl_coef,
            "moments": asdict(self.moments),
        }

    def restore(self, state: dict[str, Any]) -> None:
        keys = self.model.load_state_dict(state["model"], strict=False)  # what is not trained was loaded as it was
        assert not keys.unexpected_keys
        self.updater.optimizer.load_state_dict(state["optimizer"])
        self.iteration, self.kl_coef = state["iteration"], state["kl_coef"]
        self.moments = Moments(**state["moments"])
