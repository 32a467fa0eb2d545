"""On-policy optimisation of a language model against a score, as in Ziegler et al. 2019 (arXiv 1909.08593).

An iteration completes a batch of queries, scores the completions, and updates the policy on them for a few epochs:

1. draw the next queries, complete each `group_size` times, score the completions;
2. before any step, by the update's own forward and on the first epoch's own micro-batches: log-probabilities of the
   policy and of the reference, and the critic's values;
3. stop here if these are not what honest sampling gives;
4. shape the scores: normalise them, and apply the rule for completions without an end;
5. the algorithm's own step: from scores, log-probabilities and values to advantages and returns;
6. for each epoch, for each minibatch: one optimiser step on the clipped loss (Schulman et al. 2017);
7. adapt the KL coefficient.

What tells algorithms apart is given: `advantage` is step 5, and `critic` is None for those without values.

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

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prefsweep.config.stages import OnPolicyConfig
from prefsweep.models.attention import attend_in_fp32
from prefsweep.models.codec import TextCodec
from prefsweep.models.direct_gradients import use_direct_gradients
from prefsweep.models.loading import autocast
from prefsweep.models.logprobs import Ids
from prefsweep.models.precision import weights_cast_once
from prefsweep.ppo import tensors
from prefsweep.ppo.batches import MicroBatch, Minibatch, Split, shuffled
from prefsweep.ppo.guards import check_rollouts
from prefsweep.ppo.policy import ActorCritic, Critic, reference_logprobs
from prefsweep.ppo.rollout import Rollouts, Sampler, Score, clipped_query
from prefsweep.ppo.tensors import Moments, masked_mean
from prefsweep.ppo.update import Metrics, Snapshot, Targets, Updater

# From the rollouts before the update, their shaped scores [N] and the KL coefficient to what the update aims at. Rows
# `group_size` apart are of different queries: those of query q are q · group_size up to (q + 1) · group_size − 1.
Advantage = Callable[[Snapshot, Tensor, float], Targets]


@dataclass(frozen=True)
class Task:
    """What is optimised. `reference` is never trained, or is the policy itself, of which only the adapters are."""

    policy: PreTrainedModel
    reference: PreTrainedModel
    codec: TextCodec
    score: Score
    queries: list[Ids]


@dataclass
class Trainer:
    """The algorithm and its state: the models, the optimiser, the KL coefficient and the scale of the scores."""

    config: OnPolicyConfig
    task: Task
    advantage: Advantage
    critic: Critic | None
    accelerator: Any
    micro_batch: MicroBatch
    forward_batch: int

    def __post_init__(self) -> None:
        config, task, accelerator = self.config, self.task, self.accelerator
        self.model = ActorCritic(task.policy, self.critic, config.temperature).train()
        attend_in_fp32(self.model, task.reference)
        for trunk in filter(None, (task.policy, self.model.critic)):
            use_direct_gradients(trunk)
        self.sampler = Sampler(config, task.policy, task.codec, task.score, accelerator, self.forward_batch)
        self.updater = Updater(config, self.model, self.critic, accelerator, task.codec.pad)
        self.split = Split(accelerator.process_index, accelerator.num_processes, self.micro_batch)
        self.iteration = 0  # how many are finished
        self.kl_coef = config.kl_coef
        self.moments = Moments()

    def iterate(self) -> tuple[Metrics, Rollouts]:
        """Make steps 1 to 7; raise `TrippedError` with the weights as they were before what tripped it."""
        config, iteration = self.config, self.iteration
        self.calibrate()
        # 1. completions and scores
        groups = config.batch_size // config.group_size
        queries = [self.query(iteration * groups + group) for group in range(groups)]
        rollouts = self.complete(queries, str(iteration), config.group_size)
        # 2. the policy, the reference and the critic, before any step
        sizes = [rollouts.tokens([row]) for row in range(config.batch_size)]
        epochs = [self.split.minibatches(config, iteration, epoch, sizes) for epoch in range(config.epochs)]
        before = self.score_rollouts(rollouts, epochs[0])
        # 3. honest?
        entropy = float(masked_mean(before.entropy, before.mask))
        check_rollouts(config, iteration + 1, rollouts.scores, before.kl, entropy)
        # 4. and 5. scores, advantages and returns
        targets = self.advantage(before, self.shape_scores(rollouts), self.kl_coef)
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

    def query(self, number: int) -> Ids:
        """Return every query once in a shuffled order, then again in another."""
        passes, index = divmod(number, len(self.task.queries))
        return self.task.queries[shuffled(f"{self.config.seed}/queries/{passes}", len(self.task.queries))[index]]

    def complete(self, queries: list[Ids], name: str, group_size: int = 1) -> Rollouts:
        """Complete each query `group_size` times, rows of one query in succession, by the random numbers of `name`."""
        clipped = [clipped_query(query, f"{name}/{row}", self.config) for row, query in enumerate(queries)]
        repeated = [query for query in clipped for _ in range(group_size)]
        return self.sampler(repeated, [f"{name}/{row}" for row in range(len(repeated))])

    def calibrate(self) -> None:
        """Fix the scale of scores, once, by the starting policy's completions of the first queries."""
        if self.config.score_normalisation == "start" and not self.moments.count:
            queries = [self.query(row) for row in range(self.config.normalisation_samples)]
            self.moments.add(self.complete(queries, "start").scores)

    @torch.no_grad()
    def score_rollouts(self, rollouts: Rollouts, minibatches: list[Minibatch]) -> Snapshot:
        """Return what policy, reference and critic give for every rollout, by the micro-batches of `minibatches`."""
        lengths = rollouts.lengths
        width = int(lengths.max())
        local = torch.zeros(3 if self.model.value_head is None else 4, len(lengths), width, device=lengths.device)
        models = [model for model in (self.task.policy, self.task.reference, self.model.critic) if model is not None]
        with autocast(self.config.precision, lengths.device), weights_cast_once(*models):
            for rows in (rows for minibatch in minibatches for rows in minibatch.micro_batches):
                batch = rollouts.batch(rows, self.task.codec.pad)
                output = self.model(batch)
                reference = reference_logprobs(self.task.reference, batch, self.config.temperature)
                columns = [output.logprobs, reference, output.entropy, output.values]
                known = torch.stack([column for column in columns if column is not None])
                local[:, rows, -batch.completion_mask.shape[1] :] = known.where(batch.completion_mask, 0.0)
        # a row was computed by one process and is 0 in the others
        logprobs, reference, entropy, *values = self.accelerator.reduce(local, "sum")
        mask = torch.arange(width, device=lengths.device)[None, :] >= width - lengths[:, None]
        return Snapshot(logprobs, reference, entropy, mask, *values)

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
            **value_metrics(before, targets),
            "response/length": float(rollouts.lengths.float().mean()),
            "response/ended": float(rollouts.ended.float().mean()),
        }

    def validate(self, queries: list[Ids]) -> tuple[Metrics, Rollouts]:
        """Complete held-out queries, with equal draws each time. `objective` is score − KL at the configured price."""
        rollouts = self.complete(queries, "validation")
        rows = tuple(range(len(queries)))
        whole = self.split.minibatch(rows, [rollouts.tokens([row]) for row in rows])
        kl = float(self.score_rollouts(rollouts, [whole]).kl.mean())
        score = float(rollouts.scores.mean())
        scaled = float(self.moments.normalised(rollouts.scores).mean())
        return {"score": score, "kl": kl, "objective": scaled - self.config.kl_coef * kl}, rollouts

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


def value_metrics(before: Snapshot, targets: Targets) -> Metrics:
    """Return how well the critic knew the returns; nothing without a critic."""
    if before.values is None or targets.returns is None:
        return {}
    return {
        "explained_variance": tensors.explained_variance(before.values, targets.returns, before.mask),
        "value/mean": float(masked_mean(before.values, before.mask)),
        "return/mean": float(masked_mean(targets.returns, before.mask)),
    }
