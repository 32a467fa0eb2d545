"""The update: optimiser steps on one iteration's rollouts, epoch by epoch, minibatch by minibatch."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from prefsweep.config.stages import OnPolicyConfig
from prefsweep.models.loading import autocast
from prefsweep.ppo import tensors
from prefsweep.ppo.batches import Minibatch
from prefsweep.ppo.guards import check_step
from prefsweep.ppo.loss import kl_penalty, policy_loss, value_loss
from prefsweep.ppo.policy import ActorCritic, Critic
from prefsweep.ppo.rollout import Rollouts

Metrics = dict[str, float]
STATISTICS = (
    *("loss/policy", "loss/value", "loss/kl", "approx_kl"),
    *("clip_fraction/policy", "clip_fraction/value", "ratio"),
)


@dataclass(frozen=True)
class Snapshot:
    """The rollouts as the models saw them before the update; each [N, A], right-aligned, 0 outside the mask."""

    logprobs: Tensor
    reference: Tensor
    entropy: Tensor
    mask: Tensor
    values: Tensor | None = None  # None without a critic

    @property
    def kl(self) -> Tensor:
        """[N] log π(y) − log π_ref(y) of each completion."""
        return tensors.kl_per_completion(self.logprobs, self.reference, self.mask)


@dataclass(frozen=True)
class Targets:
    """What the update aims at."""

    advantages: Tensor  # [N, A]
    returns: Tensor | None = None  # [N, A], what the critic learns; None without one
    kl_loss_coef: float | None = None  # the price of KL where it is a penalty of the loss and not of the reward


class Updater:
    """Holds the optimiser and makes the optimiser steps of each iteration."""

    def __init__(self, config: OnPolicyConfig, model: ActorCritic, critic: Critic | None, accelerator: Any, pad: int):
        self.config = config
        self.model = model
        self.critic = critic
        self.accelerator = accelerator
        self.pad = pad
        self.tokens = 0  # that optimiser steps have read so far, over all processes
        groups = [{"params": trained(model.policy.parameters())}]
        if critic is not None:
            parts = [part for part in (model.value_head, model.critic) if part is not None]
            groups.append({"params": [weight for part in parts for weight in part.parameters()]})
        self.optimizer = torch.optim.Adam(groups, lr=config.learning_rate, eps=config.adam_epsilon, fused=True)

    def update(
        self, iteration: int, epochs: list[list[Minibatch]], rollouts: Rollouts, before: Snapshot, targets: Targets
    ) -> Metrics:
        """Make one step for each minibatch, until one would start too far from the policy that drew the completions."""
        self.set_learning_rate(iteration)
        names = self.statistics(targets)
        steps, norms = list[Tensor](), list[float]()
        for minibatch in (minibatch for epoch in epochs for minibatch in epoch):
            # 1. the gradient of the whole minibatch, over all processes
            means = self.backward_minibatch(minibatch, rollouts, before, targets)
            steps.append(means)
            self.tokens += rollouts.tokens(minibatch.rows)
            # 2. too far?
            if self.config.target_kl is not None and means[names.index("approx_kl")] > self.config.target_kl:
                break
            # 3. finite?
            norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm))
            check_step(iteration + 1, means, norm)
            # 4. the step
            self.optimizer.step()
            norms.append(norm)
        return self.metrics(names, steps, norms)

    def set_learning_rate(self, iteration: int) -> None:
        config = self.config
        scale = 1 - iteration / config.iterations if config.schedule == "linear" else 1.0
        scale *= min(1.0, (iteration + 1) / (config.warmup_iterations + 1))
        rates = [config.learning_rate] if self.critic is None else [config.learning_rate, self.critic.learning_rate]
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * scale

    def statistics(self, targets: Targets) -> list[str]:
        """Return the names of what `backward_minibatch` measures, in order."""
        absent = {"loss/value", "clip_fraction/value"} if self.critic is None else set()
        absent |= {"loss/kl"} if targets.kl_loss_coef is None else set()
        return [name for name in STATISTICS if name not in absent]

    def backward_minibatch(
        self, minibatch: Minibatch, rollouts: Rollouts, before: Snapshot, targets: Targets
    ) -> Tensor:
        """Leave the minibatch's gradient in the parameters; return its `statistics` [S], means over its tokens."""
        tokens = before.mask[list(minibatch.rows)].sum()
        self.optimizer.zero_grad()
        names = self.statistics(targets)
        sums = torch.zeros(len(names), device=tokens.device)
        device = tokens.device
        with autocast(self.config.precision, device):  # around all: autocast casts the weights once for its whole block
            for rows in minibatch.micro_batches:
                loss, statistics = self.losses(rows, rollouts, before, targets)
                with torch.autocast(device.type, enabled=False):
                    self.accelerator.backward(loss / tokens)
                sums += torch.stack([statistics[name].detach().float() for name in names])
        self.sum_gradients()
        means: Tensor = self.accelerator.reduce(sums, "sum") / tokens
        return means

    def losses(
        self, rows: list[int], rollouts: Rollouts, before: Snapshot, targets: Targets
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss [] of a micro-batch and its `statistics`, all of them sums over its tokens."""
        batch = rollouts.batch(rows, self.pad)
        mask, width = batch.completion_mask, batch.completion_mask.shape[1]
        output = self.model(batch)

        def part(whole: Tensor | None) -> Tensor:
            assert whole is not None
            return whole[rows, -width:]

        advantages = part(targets.advantages)
        statistics = policy_loss(output.logprobs, part(before.logprobs), advantages, mask, self.config.clip_range)
        loss = statistics["loss/policy"]
        if self.critic is not None:
            values, returns = part(before.values), part(targets.returns)
            statistics |= value_loss(output.values, values, returns, mask, self.critic.clip_range)
            loss = loss + self.critic.coef * statistics["loss/value"]
        if targets.kl_loss_coef is not None:
            statistics["loss/kl"] = kl_penalty(output.logprobs, part(before.reference), mask)
            loss = loss + targets.kl_loss_coef * statistics["loss/kl"]
        return loss, statistics

    def sum_gradients(self) -> None:
        """Add the gradients of all processes in one call; one that had no row of this minibatch adds zeros."""
        if self.accelerator.num_processes == 1:
            return
        parameters = trained(self.model.parameters())
        local = [(torch.zeros_like(weight) if weight.grad is None else weight.grad).flatten() for weight in parameters]
        total = self.accelerator.reduce(torch.cat(local), "sum")
        for weight, gradient in zip(parameters, total.split([weight.numel() for weight in parameters]), strict=True):
            weight.grad = gradient.view_as(weight)

    def metrics(self, names: list[str], steps: list[Tensor], norms: list[float]) -> Metrics:
        """Return means over the minibatches, the ratio of the first, and how many steps were made."""
        means = dict(zip(names, torch.stack(steps).mean(0).tolist(), strict=True))
        del means["ratio"]
        return {
            **means,
            "ratio/first": float(steps[0][names.index("ratio")]),
            "updates": len(norms),
            "grad_norm": sum(norms) / max(len(norms), 1),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }


def trained(parameters: Iterable[Parameter]) -> list[Parameter]:
    """Return those that are trained, without the weights under adapters."""
    return [parameter for parameter in parameters if parameter.requires_grad]
