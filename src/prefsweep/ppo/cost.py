"""What an iteration costs: the same numbers however many processes share it. Validations are not counted."""

from dataclasses import dataclass

from accelerate.utils import gather_object

from prefsweep.models.flops import forward_flops, training_flops
from prefsweep.models.scorers import Scorer, flops_of
from prefsweep.ppo.rollout import Rollouts
from prefsweep.ppo.trainer import Trainer
from prefsweep.ppo.update import Metrics


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
        spent = {name: total - before[name] for name, total in self.totals().items()}
        scored = rollouts.tokens(range(len(rollouts.queries)))
        flops = spent["scorer_flops"] + forward_flops(trainer.task.policy, spent["tokens_read"])
        flops += forward_flops(trainer.model, scored) + forward_flops(trainer.task.reference, scored)
        cost = {
            "labels": spent["completions"] if self.buys_labels else 0,
            "episodes": len(rollouts.queries),
            "tokens_generated": spent["tokens_generated"],
            "tokens_trained": spent["tokens_trained"],
            "flops": flops + training_flops(trainer.model, spent["tokens_trained"]),
        }
        return metrics, rollouts, cost

    def totals(self) -> dict[str, int]:
        """Return the counters that only ever grow, each over all processes."""
        sampler, local = self.trainer.sampler, [flops_of(self.scorer)]
        return {
            "completions": sampler.completions,
            "tokens_read": sampler.tokens_read,
            "tokens_generated": sampler.tokens_generated,
            "tokens_trained": self.trainer.updater.tokens,
            "scorer_flops": sum(gather_object(local) if self.trainer.accelerator.num_processes > 1 else local),
        }
