"""judge_model: the stage `reward_model` in the role of the judge, with a config of its own, for scorer@judge=trained.

No training stage reads it. It learns other prompts (`share`), with another seed and from another backbone than the
reward model, so that a policy that exploits the reward's errors does not profit from the same errors here.
"""

from typing import Any

from prefsweep.config.stages import RewardModelConfig
from prefsweep.stages import reward_model


def run(config: RewardModelConfig, **arguments: Any) -> dict[str, Any]:
    return reward_model.run(config, **arguments, name="judge_model")
