"""The typed config of each stage: a dataclass of its own, no union of everybody's fields."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from prefsweep.config.field import setting


@dataclass
class AdapterConfig:
    """LoRA's, beside weights that stay as they are."""

    r: int = setting(at_least=1)
    alpha: int = setting(at_least=1)
    dropout: float = setting(at_least=0, below=1)
    targets: list[str] = setting()


@dataclass
class StageConfig:
    """`revision` is raised when the code of a stage changes what it computes; `reads` names the sections it sees."""

    _target_: str = setting()
    revision: int = setting(at_least=1)
    reads: list[str] = setting()


@dataclass
class TrainingConfig(StageConfig):
    """What every training loop has. One batch is one optimiser step, however it is split to fit in memory."""

    seed: int = setting(at_least=0)
    epochs: float = setting(above=0)
    max_steps: int | None = setting(at_least=1)
    batch_size: int = setting(at_least=1)
    optimizer: str = setting(choices=("adamw", "rmsprop"), absent_equals="adamw")
    learning_rate: float = setting(above=0)
    schedule: str = setting(choices=("linear", "cosine", "constant_with_warmup"))
    warmup_steps: int = setting(at_least=0)
    weight_decay: float = setting(at_least=0)
    adam_beta2: float = setting(above=0, below=1)
    max_grad_norm: float = setting(above=0)
    precision: str = setting(choices=("fp32", "bf16"))
    max_length: int = setting(at_least=2)
    evaluate_every: int | None = setting(at_least=1)
    keep_every: int | None = setting(at_least=1, absent_equals=None)
    checkpoint: str = setting(choices=("last", "best"))
    best_by: str = setting(choices=("loss",))
    patience: int | None = setting(at_least=1)


@dataclass
class PretrainConfig(TrainingConfig):
    pass


@dataclass
class AnsweringConfig(TrainingConfig):
    """Of a policy: all of it or adapters, and the answers that it gives at each validation."""

    lora: bool = setting(absent_equals=False)
    adapter: AdapterConfig = setting(only_with="lora")
    validation_prompts: int = setting(at_least=0)
    validation_tokens: int = setting(at_least=1, only_with="validation_prompts")


@dataclass
class SFTConfig(AnsweringConfig):
    learn: str = setting(choices=("answer", "all"))


# TRL's, one for one; `docs/configuration.md` says whose paper each is.
DPO_LOSSES = (
    *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired"),
    *("apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
)


@dataclass
class DPOConfig(AnsweringConfig):
    best_by: str = setting(choices=("loss", "accuracy", "margin"))
    loss: list[str] = setting(choices=DPO_LOSSES)
    loss_weights: list[float] | None = setting(above=0)
    beta: float = setting(above=0)
    label_smoothing: float = setting(at_least=0, below=0.5)
    f_divergence: str = setting(choices=("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"))
    f_alpha: float = setting()
    weighting: bool = setting()
    length_desensitisation: float | None = setting(at_least=0, at_most=1)
    discopop_tau: float = setting(above=0)


@dataclass
class EncoderConfig:
    """A bidirectional model to start a reward model from: found, or made from nothing, as a scorer is."""

    id: str | None = setting(unless="path")
    revision: str | None = setting(unless="path")
    path: str | None = setting(is_content=True)
    architecture: Any = setting(unless="path", absent_equals=None)  # an EncoderArchitecture or None
    small: Any = setting(in_identity=False)  # likewise


@dataclass
class RewardConfig(TrainingConfig):
    best_by: str = setting(choices=("loss", "accuracy", "margin"))
    backbone: str = setting(choices=("policy", "encoder"))
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    template: str = setting()
    pooling: str = setting(choices=("last", "mean"))
    share: list[float] = setting(at_least=0, at_most=1, absent_equals=[0.0, 1.0])


@dataclass
class PairsConfig(StageConfig):
    prompts: int = setting(at_least=1)
    validation_prompts: int = setting(at_least=1)
    answers: int = setting(at_least=2)
    max_new_tokens: int = setting(at_least=1)
    temperature: float = setting(above=0)
    precision: str = setting(choices=("fp32", "bf16"))
    seed: int = setting(at_least=0)


@dataclass
class ReferenceConfig(StageConfig):
    precision: str = setting(choices=("fp32", "bf16"))
    max_length: int = setting(at_least=2)
    length_desensitisation: float | None = setting(at_least=0, at_most=1)


@dataclass
class PPOConfig(StageConfig):
    """Its loop has iterations, each a batch of rollouts and several epochs of updates on it: not a TrainingConfig."""

    lora: bool = setting(absent_equals=False)
    adapter: AdapterConfig = setting(only_with="lora")
    seed: int = setting(at_least=0)
    iterations: int = setting(at_least=1)
    batch_size: int = setting(at_least=1)
    minibatch_size: int = setting(at_least=1)
    epochs: int = setting(at_least=1)
    learning_rate: float = setting(above=0)
    critic_learning_rate: float | None = setting(above=0)
    schedule: str = setting(choices=("linear", "constant"))
    warmup_iterations: int = setting(at_least=0)
    adam_epsilon: float = setting(above=0)
    max_grad_norm: float = setting(above=0)
    precision: str = setting(choices=("fp32", "bf16"))
    max_length: int = setting(at_least=2)
    query_tokens: list[int] | None = setting(at_least=1)
    response_tokens: list[int] = setting(at_least=1)
    temperature: float = setting(above=0)
    critic: str = setting(choices=("shared", "separate", "reward"))
    missing_eos: str = setting(choices=("none", "penalty", "replace"))
    missing_eos_amount: float = setting(at_least=0)
    score_normalisation: str = setting(choices=("none", "start", "running"))
    normalisation_samples: int = setting(at_least=2)
    score_clip: float | None = setting(above=0)
    beta: float = setting(at_least=0)
    kl_target: float | None = setting(above=0)
    kl_horizon: float = setting(above=0)
    whiten_rewards: bool = setting()
    whiten_advantages: bool = setting()
    discount: float = setting(above=0, at_most=1)
    gae_lambda: float = setting(at_least=0, at_most=1)
    clip_policy: float = setting(above=0, below=1)
    clip_value: float | None = setting(above=0)
    value_coefficient: float = setting(at_least=0)
    max_approx_kl: float | None = setting(above=0)
    negative_kl: float = setting(above=0)
    min_entropy: float = setting(at_least=0)
    evaluate_every: int | None = setting(at_least=1)
    validation_prompts: int = setting(at_least=1)
    keep_every: int | None = setting(at_least=1, absent_equals=None)
    checkpoint: str = setting(choices=("last", "best"))
    best_by: str = setting(choices=("score", "objective"))
    # They decide whether a reward model is used, not what comes of it: no part of an identity.
    minimum_accuracy: float = setting(in_identity=False, at_least=0, at_most=1)
    must_beat_length: bool = setting(in_identity=False)


@dataclass
class HarmfulHelpful:
    """Prompts drawn from HH's harmless-base and helpful-base test files, as arXiv 2509.09055 draws them."""

    harmful: int = setting(at_least=1)
    helpful: int = setting(at_least=1)
    words: list[str] = setting()
    whole_words: bool = setting()
    seed: int = setting(at_least=0)


@dataclass
class SampleConfig(StageConfig):
    split: str = setting(choices=("validation", "test"))
    protocol: HarmfulHelpful | None = setting(absent_equals=None)
    prompts: int = setting(at_least=1)
    answers: int = setting(at_least=1)
    max_new_tokens: int = setting(at_least=1)
    temperature: float = setting(at_least=0)
    precision: str = setting(choices=("fp32", "bf16"))
    seed: int = setting(at_least=0)


@dataclass
class ScoreConfig(StageConfig):
    pass


@dataclass
class JudgeConfig(StageConfig):
    pairs: int = setting(at_least=1)


@dataclass
class LimitConfig(StageConfig):
    trusted: float = setting(above=0, below=1)
    resamples: int = setting(at_least=100)


@dataclass
class EvaluateConfig(StageConfig):
    # What these two add are inputs of the stage: it is there that they enter its identity.
    limit: bool = setting(in_identity=False)
    also: list[str] = setting(in_identity=False)
    limit_of: str = setting(choices=("base", "start"), only_with="limit", absent_equals="base")
    minimum_kl: float = setting(above=0, only_with="limit")
    beta: float = setting(above=0)
    harmless_above: float = setting()
    helpful_above: float = setting()
    temperature: float = setting(at_least=0, absent_equals=1.0)
    precision: str = setting(choices=("fp32", "bf16"))
    pairs: int = setting(at_least=1)
    max_length: int = setting(at_least=2)


@dataclass
class Stages:
    pretrain: PretrainConfig = dataclasses.field(default_factory=PretrainConfig)
    sft: SFTConfig = dataclasses.field(default_factory=SFTConfig)
    reward: RewardConfig = dataclasses.field(default_factory=RewardConfig)
    judge_model: RewardConfig = dataclasses.field(default_factory=RewardConfig)
    pairs: PairsConfig = dataclasses.field(default_factory=PairsConfig)
    reference: ReferenceConfig = dataclasses.field(default_factory=ReferenceConfig)
    dpo: DPOConfig = dataclasses.field(default_factory=DPOConfig)
    ppo: PPOConfig = dataclasses.field(default_factory=PPOConfig)
    sample: SampleConfig = dataclasses.field(default_factory=SampleConfig)
    score: ScoreConfig = dataclasses.field(default_factory=ScoreConfig)
    validate: ScoreConfig = dataclasses.field(default_factory=ScoreConfig)
    judge: JudgeConfig = dataclasses.field(default_factory=JudgeConfig)
    limit_samples: SampleConfig = dataclasses.field(default_factory=SampleConfig)
    limit_rewards: ScoreConfig = dataclasses.field(default_factory=ScoreConfig)
    limit: LimitConfig = dataclasses.field(default_factory=LimitConfig)
    evaluate: EvaluateConfig = dataclasses.field(default_factory=EvaluateConfig)
