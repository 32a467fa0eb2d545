"""The update: optimiser steps on one iteration's rollouts, epoch by epoch, minibatch by minibatch."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from prefsweep.config.stages import PPOConfig
from prefsweep.models.loading import autocast
from prefsweep.ppo import tensors
from prefsweep.ppo.batches import Minibatch
from prefsweep.ppo.guards import check_step
from prefsweep.ppo.loss import policy_loss, value_loss
from prefsweep.ppo.policy import ActorCritic
from prefsweep.ppo.rollout import Rollouts

Metrics = dict[str, float]
STATISTICS = ("loss/policy", "loss/value", "approx_kl", "clip_fraction/policy", "clip_fraction/value", "ratio")
APPROX_KL, RATIO = STATISTICS.index("approx_kl"), STATISTICS.index("ratio")


@dataclass(frozen=True)
class Snapshot:
    """The rollouts as the models saw them before the update; each [N, A], right-aligned, 0 outside the mask."""

    logprobs: Tensor
    reference: Tensor
    values: Tensor
    entropy: Tensor
    mask: Tensor

    @property
    def kl(self) -> Tensor:
        """[N] log π(y) − log π_ref(y) of each completion."""
        return tensors.kl_per_completion(self.logprobs, self.reference, self.mask)


@dataclass(frozen=True)
class Targets:
    """What the update aims at; each [N, A]."""

    advantages: Tensor
    returns: Tensor


class Updater:
    """Holds the optimiser and makes the optimiser steps of each iteration."""

    def __init__(self, config: PPOConfig, model: ActorCritic, accelerator: Any, pad: int):
        self.config = config
        self.model = model
        self.accelerator = accelerator
        self.pad = pad
        self.tokens = 0  # that optimiser steps have read so far, over all processes
        groups = [{"params": trained(model.policy.parameters())}, {"params": model.critic_parameters()}]
        self.optimizer = torch.optim.Adam(groups, lr=config.learning_rate, eps=config.adam_epsilon)

    def update(
        self, iteration: int, epochs: list[list[Minibatch]], rollouts: Rollouts, before: Snapshot, targets: Targets
    ) -> Metrics:
        """Make one step for each minibatch, until one would start too far from the policy that drew the completions."""
        self.set_learning_rate(iteration)
        steps, norms = list[Tensor](), list[float]()
        for minibatch in (minibatch for epoch in epochs for minibatch in epoch):
            # 1. the gradient of the whole minibatch, over all processes
            means = self.backward_minibatch(minibatch, rollouts, before, targets)
            steps.append(means)
            self.tokens += rollouts.tokens(minibatch.rows)
            # 2. too far?
            if self.config.target_kl is not None and means[APPROX_KL] > self.config.target_kl:
                break
            # 3. finite?
            norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm))
            check_step(iteration + 1, means, norm)
            # 4. the step
            self.optimizer.step()
            norms.append(norm)
        return self.metrics(steps, norms)

    def set_learning_rate(self, iteration: int) -> None:
        config = self.config
        scale = 1 - iteration / config.iterations if config.schedule == "linear" else 1.0
        scale *= min(1.0, (iteration + 1) / (config.warmup_iterations + 1))
        policy, critic = self.optimizer.param_groups
        policy["lr"] = config.learning_rate * scale
        critic["lr"] = (config.critic_learning_rate or config.learning_rate) * scale

    def backward_minibatch(
        self, minibatch: Minibatch, rollouts: Rollouts, before: Snapshot, targets: Targets
    ) -> Tensor:
        """Leave the minibatch's gradient in the parameters; return its STATISTICS [6], means over its tokens."""
        config = self.config
        tokens = before.mask[list(minibatch.rows)].sum()
        self.optimizer.zero_grad()
        sums = torch.zeros(len(STATISTICS), device=tokens.device)
        for rows in minibatch.micro_batches:
            batch = rollouts.batch(rows, self.pad)
            mask, width = batch.completion_mask, batch.completion_mask.shape[1]
            with autocast(config.precision, tokens.device):
                output = self.model(batch)
            logprobs, values, advantages, returns = (
                tensor[rows, -width:]
                for tensor in (before.logprobs, before.values, targets.advantages, targets.returns)
            )
            policy = policy_loss(output.logprobs, logprobs, advantages, mask, config.clip_range)
            value = value_loss(output.values, values, returns, mask, config.clip_range_value)
            self.accelerator.backward((policy.loss + config.vf_coef * value.loss) / tokens)
            statistics = (policy.loss, value.loss, policy.divergence, policy.clipped, value.clipped, policy.ratio)
            sums += torch.stack([statistic.detach().float() for statistic in statistics])
        self.sum_gradients()
        means: Tensor = self.accelerator.reduce(sums, "sum") / tokens
        return means

    def sum_gradients(self) -> None:
        """Add the gradients of all processes in one call; one that had no row of this minibatch adds zeros."""
        if self.accelerator.num_processes == 1:
            return
        parameters = trained(self.model.parameters())
        local = [(torch.zeros_like(weight) if weight.grad is None else weight.grad).flatten() for weight in parameters]
        total = self.accelerator.reduce(torch.cat(local), "sum")
        for weight, gradient in zip(parameters, total.split([weight.numel() for weight in parameters]), strict=True):
            weight.grad = gradient.view_as(weight)

    def metrics(self, steps: list[Tensor], norms: list[float]) -> Metrics:
        """Return means over the minibatches, the ratio of the first, and how many steps were made."""
        means = dict(zip(STATISTICS, torch.stack(steps).mean(0).tolist(), strict=True))
        del means["ratio"]
        return {
            **means,
            "ratio/first": float(steps[0][RATIO]),
            "updates": len(norms),
            "grad_norm": sum(norms) / max(len(norms), 1),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }


def trained(parameters: Iterable[Parameter]) -> list[Parameter]:
    """Return those that are trained, without the weights under adapters."""
    return [parameter for parameter in parameters if parameter.requires_grad]
