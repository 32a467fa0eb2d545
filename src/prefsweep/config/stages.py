"""The typed config of each stage: a dataclass of its own, no union of everybody's fields."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from prefsweep.config.field import config_field


@dataclass
class AdapterConfig:
    """LoRA's, beside weights that stay as they are."""

    r: int = config_field(at_least=1)
    alpha: int = config_field(at_least=1)
    dropout: float = config_field(at_least=0, below=1)
    targets: list[str] = config_field()


@dataclass
class StageConfig:
    """`code_version` is raised when the code of a stage changes what it computes; `reads` names the sections it sees."""

    _target_: str = config_field()
    code_version: int = config_field(at_least=1)
    reads: list[str] = config_field()


@dataclass
class TrainingConfig(StageConfig):
    """What every training loop has. One batch is one optimiser step, however it is split to fit in memory."""

    seed: int = config_field(at_least=0)
    epochs: float = config_field(above=0)
    max_steps: int | None = config_field(at_least=1)
    batch_size: int = config_field(at_least=1)
    optimizer: str = config_field(choices=("adamw", "rmsprop"), legacy_default="adamw")
    learning_rate: float = config_field(above=0)
    schedule: str = config_field(choices=("linear", "cosine", "constant_with_warmup"))
    warmup_steps: int = config_field(at_least=0)
    weight_decay: float = config_field(at_least=0)
    adam_beta2: float = config_field(above=0, below=1)
    max_grad_norm: float = config_field(above=0)
    precision: str = config_field(choices=("fp32", "bf16"))
    max_length: int = config_field(at_least=2)
    evaluate_every: int | None = config_field(at_least=1)
    save_every: int | None = config_field(at_least=1, legacy_default=None)
    checkpoint: str = config_field(choices=("last", "best"))
    best_by: str = config_field(choices=("loss",))
    patience: int | None = config_field(at_least=1)


@dataclass
class PretrainConfig(TrainingConfig):
    pass


@dataclass
class PolicyTrainingConfig(TrainingConfig):
    """Of a policy: all of it or adapters, and the answers that it gives at each validation."""

    lora: bool = config_field(legacy_default=False)
    adapter: AdapterConfig = config_field(only_with="lora")
    validation_prompts: int = config_field(at_least=0)
    validation_max_new_tokens: int = config_field(at_least=1, only_with="validation_prompts")


@dataclass
class SFTConfig(PolicyTrainingConfig):
    completion_only_loss: bool = config_field()


# TRL's, one for one; `docs/configuration.md` says whose paper each is.
DPO_LOSSES = (
    *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired"),
    *("apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
)


@dataclass
class DPOConfig(PolicyTrainingConfig):
    best_by: str = config_field(choices=("loss", "accuracy", "margin"))
    loss: list[str] = config_field(choices=DPO_LOSSES)
    loss_weights: list[float] | None = config_field(above=0)
    beta: float = config_field(above=0)
    label_smoothing: float = config_field(at_least=0, below=0.5)
    f_divergence: str = config_field(choices=("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"))
    f_alpha: float = config_field()
    use_weighting: bool = config_field()
    ld_alpha: float | None = config_field(at_least=0, at_most=1)
    discopop_tau: float = config_field(above=0)


@dataclass
class EncoderConfig:
    """A bidirectional model to start a reward model from: found, or made from nothing, as a scorer is."""

    id: str | None = config_field(unless="path")
    revision: str | None = config_field(unless="path")
    path: str | None = config_field(is_content=True)
    architecture: Any = config_field(unless="path", legacy_default=None)  # an EncoderArchitecture or None
    small: Any = config_field(hashed=False)  # likewise


@dataclass
class RewardModelConfig(TrainingConfig):
    best_by: str = config_field(choices=("loss", "accuracy", "margin"))
    backbone: str = config_field(choices=("policy", "encoder"))
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    template: str = config_field()
    pooling: str = config_field(choices=("last", "mean"))
    share: list[float] = config_field(at_least=0, at_most=1, legacy_default=[0.0, 1.0])


@dataclass
class GeneratePairsConfig(StageConfig):
    prompts: int = config_field(at_least=1)
    validation_prompts: int = config_field(at_least=1)
    completions_per_prompt: int = config_field(at_least=2)
    max_new_tokens: int = config_field(at_least=1)
    temperature: float = config_field(above=0)
    precision: str = config_field(choices=("fp32", "bf16"))
    seed: int = config_field(at_least=0)


@dataclass
class ReferenceLogpsConfig(StageConfig):
    precision: str = config_field(choices=("fp32", "bf16"))
    max_length: int = config_field(at_least=2)
    ld_alpha: float | None = config_field(at_least=0, at_most=1)


@dataclass
class OnPolicyConfig(StageConfig):
    """What ppo and its like share. Their loop has iterations, each a batch of rollouts and several epochs of updates on
    it: not a TrainingConfig."""

    lora: bool = config_field(legacy_default=False)
    adapter: AdapterConfig = config_field(only_with="lora")
    seed: int = config_field(at_least=0)
    iterations: int = config_field(at_least=1)
    batch_size: int = config_field(at_least=1)
    group_size: int = config_field(at_least=1, legacy_default=1)
    minibatch_size: int = config_field(at_least=1)
    epochs: int = config_field(at_least=1)
    learning_rate: float = config_field(above=0)
    schedule: str = config_field(choices=("linear", "constant"))
    warmup_iterations: int = config_field(at_least=0)
    adam_epsilon: float = config_field(above=0)
    max_grad_norm: float = config_field(above=0)
    precision: str = config_field(choices=("fp32", "bf16"))
    max_length: int = config_field(at_least=2)
    query_tokens: list[int] | None = config_field(at_least=1)
    response_tokens: list[int] = config_field(at_least=1)
    temperature: float = config_field(above=0)
    missing_eos: str = config_field(choices=("none", "penalty", "replace"))
    missing_eos_penalty: float = config_field(at_least=0)
    score_normalisation: str = config_field(choices=("none", "start", "running"))
    normalisation_samples: int = config_field(at_least=2)
    score_clip: float | None = config_field(above=0)
    kl_coef: float = config_field(at_least=0)
    adaptive_kl_target: float | None = config_field(above=0)
    adaptive_kl_horizon: float = config_field(above=0)
    clip_range: float = config_field(above=0, below=1)
    target_kl: float | None = config_field(above=0)
    negative_kl: float = config_field(above=0)
    min_entropy: float = config_field(at_least=0)
    evaluate_every: int | None = config_field(at_least=1)
    validation_prompts: int = config_field(at_least=1)
    save_every: int | None = config_field(at_least=1, legacy_default=None)
    checkpoint: str = config_field(choices=("last", "best"))
    best_by: str = config_field(choices=("score", "objective"))
    # They decide whether a reward model is used, not what comes of it: no part of an identity.
    min_accuracy: float = config_field(hashed=False, at_least=0, at_most=1)
    must_beat_length: bool = config_field(hashed=False)


@dataclass
class PPOConfig(OnPolicyConfig):
    critic: str = config_field(choices=("shared", "separate", "reward"))
    critic_learning_rate: float | None = config_field(above=0)
    vf_coef: float = config_field(at_least=0)
    clip_range_value: float | None = config_field(above=0)
    gamma: float = config_field(above=0, at_most=1)
    gae_lambda: float = config_field(at_least=0, at_most=1)
    whiten_rewards: bool = config_field()
    whiten_advantages: bool = config_field()


@dataclass
class HarmfulHelpful:
    """Prompts drawn from HH's harmless-base and helpful-base test files, as arXiv 2509.09055 draws them."""

    harmful: int = config_field(at_least=1)
    helpful: int = config_field(at_least=1)
    words: list[str] = config_field()
    whole_words: bool = config_field()
    seed: int = config_field(at_least=0)


@dataclass
class GenerateConfig(StageConfig):
    split: str = config_field(choices=("validation", "test"))
    protocol: HarmfulHelpful | None = config_field(legacy_default=None)
    prompts: int = config_field(at_least=1)
    completions_per_prompt: int = config_field(at_least=1)
    max_new_tokens: int = config_field(at_least=1)
    temperature: float = config_field(at_least=0)
    precision: str = config_field(choices=("fp32", "bf16"))
    seed: int = config_field(at_least=0)


@dataclass
class JudgeCompletionsConfig(StageConfig):
    pass


@dataclass
class JudgeAccuracyConfig(StageConfig):
    pairs: int = config_field(at_least=1)


@dataclass
class FrontierConfig(StageConfig):
    trusted: float = config_field(above=0, below=1)
    bootstrap_samples: int = config_field(at_least=100)


@dataclass
class EvaluateConfig(StageConfig):
    # What these two add are inputs of the stage: it is there that they enter its identity.
    frontier: bool = config_field(hashed=False)
    other_datasets: list[str] = config_field(hashed=False)
    frontier_of: str = config_field(choices=("base", "start"), only_with="frontier", legacy_default="base")
    min_kl: float = config_field(above=0, only_with="frontier")
    beta: float = config_field(above=0)
    harmless_above: float = config_field()
    helpful_above: float = config_field()
    temperature: float = config_field(at_least=0, legacy_default=1.0)
    precision: str = config_field(choices=("fp32", "bf16"))
    pairs: int = config_field(at_least=1)
    max_length: int = config_field(at_least=2)


@dataclass
class Stages:
    pretrain: PretrainConfig = dataclasses.field(default_factory=PretrainConfig)
    sft: SFTConfig = dataclasses.field(default_factory=SFTConfig)
    reward_model: RewardModelConfig = dataclasses.field(default_factory=RewardModelConfig)
    judge_model: RewardModelConfig = dataclasses.field(default_factory=RewardModelConfig)
    generate_pairs: GeneratePairsConfig = dataclasses.field(default_factory=GeneratePairsConfig)
    reference_logps: ReferenceLogpsConfig = dataclasses.field(default_factory=ReferenceLogpsConfig)
    dpo: DPOConfig = dataclasses.field(default_factory=DPOConfig)
    ppo: PPOConfig = dataclasses.field(default_factory=PPOConfig)
    generate: GenerateConfig = dataclasses.field(default_factory=GenerateConfig)
    judge_completions: JudgeCompletionsConfig = dataclasses.field(default_factory=JudgeCompletionsConfig)
    judge_validation: JudgeCompletionsConfig = dataclasses.field(default_factory=JudgeCompletionsConfig)
    judge_accuracy: JudgeAccuracyConfig = dataclasses.field(default_factory=JudgeAccuracyConfig)
    frontier_samples: GenerateConfig = dataclasses.field(default_factory=GenerateConfig)
    frontier_rewards: JudgeCompletionsConfig = dataclasses.field(default_factory=JudgeCompletionsConfig)
    frontier: FrontierConfig = dataclasses.field(default_factory=FrontierConfig)
    evaluate: EvaluateConfig = dataclasses.field(default_factory=EvaluateConfig)
