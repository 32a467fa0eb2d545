"""What an iteration costs: the same numbers however many processes share it. Validations are not counted."""

from dataclasses import dataclass

from accelerate.utils import gather_object

from prefsweep.models.flops import forward_flops, training_flops
from prefsweep.models.scorers import Scorer, flops_of
from prefsweep.ppo.rollout import Rollouts
from prefsweep.ppo.trainer import Trainer
from prefsweep.ppo.update import Metrics


@dataclass(frozen=True)
class Totals:
    """The counters that only ever grow, read at one moment; each is over all processes."""

    completions: int
    tokens_read: int
    tokens_generated: int
    tokens_trained: int
    scorer_flops: int


@dataclass(frozen=True)
class CostTracker:
    """Runs the trainer's iterations and counts what each costs."""

    trainer: Trainer
    scorer: Scorer
    buys_labels: bool  # whether a score is a label: not where a reward model was trained on the labels there are

    def iterate(self) -> tuple[Metrics, Rollouts, dict[str, int]]:
        """Run an iteration and return what it cost: to draw completions, to score them, and to learn from them."""
        trainer, before = self.trainer, self.totals()
        metrics, rollouts = trainer.iterate()
        after = self.totals()
        scored = rollouts.tokens(range(len(rollouts.queries)))
        trained = after.tokens_trained - before.tokens_trained
        flops = forward_flops(trainer.task.policy, after.tokens_read - before.tokens_read)
        flops += after.scorer_flops - before.scorer_flops
        flops += forward_flops(trainer.model, scored) + forward_flops(trainer.task.reference, scored)
        cost = {
            "labels": after.completions - before.completions if self.buys_labels else 0,
            "episodes": len(rollouts.queries),
            "tokens_generated": after.tokens_generated - before.tokens_generated,
            "tokens_trained": trained,
            "flops": flops + training_flops(trainer.model, trained),
        }
        return metrics, rollouts, cost

    def totals(self) -> Totals:
        sampler, local = self.trainer.sampler, [flops_of(self.scorer)]
        scorer_flops = sum(gather_object(local) if self.trainer.accelerator.num_processes > 1 else local)
        return Totals(
            sampler.completions,
            sampler.tokens_read,
            sampler.tokens_generated,
            self.trainer.updater.tokens,
            scorer_flops,
        )
