"""What an iteration costs: the same numbers however many processes share it. Validations are not counted."""

from dataclasses import dataclass

from accelerate.utils import gather_object

from prefsweep.models.flops import forward_flops, training_flops
from prefsweep.models.scorers import Scorer, flops_of
from prefsweep.ppo.rollout import Rollouts
from prefsweep.ppo.trainer import Trainer
from prefsweep.ppo.update import Metrics


@dataclass(frozen=True)
class Meters:
    """What only ever grows, as it stands now."""

    generate_completions: int
    read: int
    generated: int
    differentiated: int
    scoring: int  # FLOPs, of all processes


@dataclass(frozen=True)
class CostTracker:
    trainer: Trainer
    scorer: Scorer
    buys_labels: bool  # whether a score is a label: not where a stage of ours was trained on the labels there are

    def iterate(self) -> tuple[Metrics, Rollouts, dict[str, int]]:
        """An iteration, and what it cost: to draw its answers, to look at them, to learn from them."""
        trainer, before = self.trainer, self.read()
        metrics, rollouts = trainer.iterate()
        now = self.read()
        looked_at = rollouts.tokens(range(len(rollouts.queries)))
        trained = now.differentiated - before.differentiated
        flops = forward_flops(trainer.task.policy, now.read - before.read) + now.scoring - before.scoring
        flops += forward_flops(trainer.model, looked_at) + forward_flops(trainer.task.reference, looked_at)
        cost = {
            "labels": now.generate_completions - before.generate_completions if self.buys_labels else 0,
            "episodes": len(rollouts.queries),
            "tokens_generated": now.generated - before.generated,
            "tokens_trained": trained,
            "flops": flops + training_flops(trainer.model, trained),
        }
        return metrics, rollouts, cost

    def read(self) -> Meters:
        trainer, sampler = self.trainer, self.trainer.sampler
        each = [flops_of(self.scorer)]
        scoring = sum(gather_object(each) if trainer.accelerator.num_processes > 1 else each)
        return Meters(sampler.generate_completions, sampler.read, sampler.generated, trainer.updater.tokens, scoring)
