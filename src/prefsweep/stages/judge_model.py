"""judge_model: the stage `reward` in the role of the judge, with a config of its own, for scorer@judge=trained.

No training stage reads it. It learns other questions (`share`), by another seed and from another backbone than the
reward, so that a policy which has found the reward's mistakes does not find them here again.
"""

from typing import Any

from prefsweep.config.stages import RewardModelConfig
from prefsweep.stages import reward_model


def run(config: RewardModelConfig, **given: Any) -> dict[str, Any]:
    return reward_model.run(config, **given, name="judge_model")
