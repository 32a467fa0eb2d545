"""What can be wrong with a plan: a judge that is the reward, a stage without data, a target that is not there."""

from importlib.util import find_spec
from typing import Any

from prefsweep.config.schema import Config, IMDBConfig, LocalConfig
from prefsweep.config.stages import RewardModelConfig
from prefsweep.errors import UserError
from prefsweep.pipeline.plan import Plan


def check_plan(plan: Plan, config: Config) -> None:
    check_targets(plan)
    check_judge(plan, config)
    check_pairs(plan, config.dataset)


def check_judge(plan: Plan, config: Config) -> None:
    """What was optimised does not decide the table: a policy learns the scorer's mistakes first."""
    if config.method.allow_reward_as_judge:
        return
    if {"reward_model", "judge_model"} <= plan.used:
        return check_shares(config.stages.reward_model, config.stages.judge_model)
    seen = {name: stage.payload["sections"][name] for stage in plan.stages for name in stage.sections}
    if "reward" in seen and seen["reward"] == seen.get("judge"):
        raise UserError(
            f"scorer@judge={config.judge.name}: is the reward that the method trains on; choose another judge, or say "
            "method.allow_reward_as_judge=true to reproduce a paper that did so"
        )


def check_shares(reward: RewardModelConfig, judge: RewardModelConfig) -> None:
    """Two models trained in one run are different scorers where they have learned different questions."""
    if max(reward.share[0], judge.share[0]) < min(reward.share[1], judge.share[1]):
        raise UserError(
            f"stages.reward_model.share={reward.share}: the judge learns some of these questions too, by "
            f"stages.judge_model.share={judge.share}; say stages.reward_model.share=[0,0.5], or method.allow_reward_as_judge=true"
        )


def check_pairs(plan: Plan, dataset: Any) -> None:
    """Sampled pairs are ranked by the reward, so there are none to train it on, nor a judge."""
    if dataset.pairs == "labelled" and (needs_pairs := plan.used & {"dpo", "reward_model", "judge_model"}):
        raise UserError(
            f"dataset.pairs=labelled: stages.{min(needs_pairs)} learns from pairs, and dataset={dataset.name} has "
            "single completions with a label; set method=kto, which reads them"
        )
    if "judge_model" in plan.used and dataset.pairs == "generated":
        raise UserError(
            f"scorer@judge=trained: dataset={dataset.name} has no pairs to train it on; say "
            "scorer@judge=sentiment-roberta, or another that is there already"
        )
    if "reward_model" in plan.used and isinstance(dataset, IMDBConfig | LocalConfig) and dataset.pairs == "generated":
        raise UserError(
            f"scorer@reward=trained: dataset={dataset.name} has no pairs to train it on; say "
            "scorer@reward=distilbert-imdb, or another that is there already"
        )


def check_targets(plan: Plan) -> None:
    """The module that builds a stage must be there. It is not imported: that would take seconds and may need torch."""
    for stage in plan.stages:
        module, _, function = stage.config._target_.rpartition(".")
        try:
            found = find_spec(module) if module and function else None
        except ImportError:
            found = None
        if found is None:
            raise UserError(
                f"stages.{stage.name}._target_={stage.config._target_}: no such module; say package.module.function"
            )
