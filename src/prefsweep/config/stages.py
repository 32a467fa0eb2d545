"""The typed config of each stage: its keys, the facts about it, and the checks of its settings."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from prefsweep.config.field import config_field
from prefsweep.config.model_checks import check_encoder
from prefsweep.config.schema import (
    ABOUT_TRAINING_ROWS,
    Config,
    DatasetConfig,
    HHConfig,
    SyntheticReviewsConfig,
    WeightsConfig,
)
from prefsweep.config.stage import (
    OptimiserConfig,
    PolicyConfig,
    PolicyTrainingConfig,
    StageConfig,
    TrainingConfig,
    check_bounds,
    check_share,
    stage_config,
)
from prefsweep.errors import UserError


@stage_config("pretrain")
@dataclass
class PretrainConfig(TrainingConfig):
    leaves_policy = True

    def learns_from(self, dataset: DatasetConfig) -> bool:
        """Whether the base is pretrained on the training rows; the synthetic world has reviews of their own for it."""
        return super().learns_from(dataset) and not isinstance(dataset, SyntheticReviewsConfig)


@stage_config("sft")
@dataclass
class SFTConfig(PolicyTrainingConfig):
    needs_chosen = True

    completion_only_loss: bool = config_field()


# The losses of TRL's DPOTrainer, by TRL's names; docs/methods.md lists them.
DPO_LOSSES = (
    *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired"),
    *("apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
)
# Losses that couple the rows of a batch: splitting the batch would change them.
COUPLED_LOSSES = ("sft", "aot", "aot_unpaired")
# Losses that read `label_smoothing`: of `sigmoid` it makes cDPO.
SMOOTHED_LOSSES = ("sigmoid", "robust", "exo_pair", "aot", "aot_unpaired")
# Losses without weights: aot would give the sorted pairs each other's, and in TRL the others raise an error.
UNWEIGHTED_LOSSES = ("aot", "aot_unpaired", "hinge", "sft")
# The losses that TRL generalises to other f-divergences.
F_DIVERGENCE_LOSSES = ("sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft")


@stage_config("dpo")
@dataclass
class DPOConfig(PolicyTrainingConfig):
    needs_pairs = True

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

    def check(self, key: str, config: Config) -> None:
        super().check(key, config)
        coupled = [loss for loss in self.loss if loss in COUPLED_LOSSES]
        if not self.loss:
            raise UserError(f"{key}.loss=[]: name at least one loss, as in {key}.loss=[sigmoid]")
        rows = config.runtime.micro_batch
        if coupled and rows != "auto" and rows < self.batch_size:
            reason = f"{coupled[0]} couples the pairs of a batch, so it cannot be split"
            size = f"runtime.micro_batch={rows}"
            raise UserError(f"{size}: {reason}; set runtime.micro_batch={self.batch_size} or lower {key}.batch_size")
        if self.loss_weights is not None and len(self.loss_weights) != len(self.loss):
            raise UserError(f"{key}.loss_weights={self.loss_weights}: needs one weight for each of {self.loss}")
        self.check_smoothing(key)
        unweighted = [loss for loss in self.loss if loss in UNWEIGHTED_LOSSES]
        if self.use_weighting and unweighted:
            raise UserError(f"{key}.use_weighting=true: {unweighted[0]} cannot be weighted; set false")
        undefined = [loss for loss in self.loss if loss not in F_DIVERGENCE_LOSSES]
        if self.f_divergence != "reverse_kl" and undefined:
            raise UserError(f"{key}.f_divergence={self.f_divergence}: undefined for {undefined[0]}; set reverse_kl")

    def check_smoothing(self, key: str) -> None:
        """Refuse a smoothing that no loss reads, that a loss lacks, or that two losses would read in different ways."""
        setting = f"{key}.label_smoothing={self.label_smoothing:g}"
        readers = [loss for loss in self.loss if loss in SMOOTHED_LOSSES]
        if self.label_smoothing and not readers:
            names = ", ".join(SMOOTHED_LOSSES)
            raise UserError(f"{setting}: {self.loss[0]} does not read it; set 0. Losses that do: {names}")
        if self.label_smoothing and "sigmoid" in readers and len(readers) > 1:
            raise UserError(f"{setting}: sigmoid and {readers[1]} would read it in two ways; set one loss of the two")
        if "exo_pair" in self.loss and self.label_smoothing == 0:
            raise UserError(f"{setting}: exo_pair takes its logarithm; set 0.001, as in its paper")
        if "robust" in self.loss and self.label_smoothing == 0:
            raise UserError(f"{setting}: robust is sigmoid without it; set {key}.loss=[sigmoid] or a smoothing")


@stage_config("kto")
@dataclass
class KTOConfig(PolicyTrainingConfig):
    batch_size: int = config_field(at_least=2)  # of one row there is no mismatched completion
    best_by: str = config_field(choices=("loss", "margin"))
    beta: float = config_field(above=0)
    desirable_weight: float = config_field(above=0)
    undesirable_weight: float = config_field(above=0)


@dataclass
class EncoderConfig(WeightsConfig):
    """A bidirectional model from which a reward model starts."""


@stage_config("reward_model")
@dataclass
class RewardModelConfig(TrainingConfig):
    trains_scorer = "reward"
    needs_pairs = True

    head_learning_rate: float | None = config_field(above=0)
    center_rewards_coefficient: float = config_field(at_least=0)
    best_by: str = config_field(choices=("loss", "accuracy", "margin"))
    backbone: str = config_field(choices=("policy", "encoder"))
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    template: str = config_field()
    prompt_tokens: int | None = config_field(at_least=1)

    @property
    def sections(self) -> list[str]:
        """The sections that are read, without `model` for an encoder: all models then share one reward model."""
        return [name for name in self.reads if name != "model" or self.backbone == "policy"]

    def ignores_input(self, name: str) -> bool:
        return name == "policy" and self.backbone == "encoder"

    def hub_sections(self) -> dict[str, Any]:
        return {"encoder": self.encoder} if self.backbone == "encoder" else {}

    def check(self, key: str, config: Config) -> None:
        super().check(key, config)
        if not self.template.endswith("{completion}") or self.template.count("{completion}") > 1:
            raise UserError(f"{key}.template={self.template}: must end with {{completion}} and have it once")
        if self.backbone == "encoder":
            check_encoder(f"{key}.encoder", self.encoder)


@stage_config("judge_model")
@dataclass
class JudgeModelConfig(RewardModelConfig):
    """The stage `reward_model` in the role of the judge, with settings of its own, for `scorer@judge=trained`.

    No training stage reads it. It learns other prompts than policies and rewards (`share`), with another seed and from
    another backbone than the reward model, so that a policy that exploits the reward's errors does not profit from the
    same errors here. It learns all of them whatever rows policies learn, so that the runs of a learning curve share it.
    """

    trains_scorer = "judge"
    built_by_rescoring = True

    share: list[float] = config_field(hashed=False, at_least=0, at_most=1)  # the dataset's section carries it

    @property
    def own_rows(self) -> dict[str, Any]:
        return {**dict.fromkeys(ABOUT_TRAINING_ROWS), "share": self.share}

    def check(self, key: str, config: Config) -> None:
        super().check(key, config)
        check_share(f"{key}.share", self.share)


@stage_config("generate_pairs")
@dataclass
class GeneratePairsConfig(StageConfig):
    reads_training_rows = True

    prompts: int = config_field(at_least=1)
    validation_prompts: int = config_field(at_least=1)
    completions_per_prompt: int = config_field(at_least=2)
    max_new_tokens: int = config_field(at_least=1)
    stop: list[str] | None = config_field()
    temperature: float = config_field(above=0)
    precision: str = config_field(choices=("fp32", "bf16"))
    seed: int = config_field(at_least=0)


@stage_config("reference_logps")
@dataclass
class ReferenceLogpsConfig(StageConfig):
    reads_training_rows = True

    precision: str = config_field(choices=("fp32", "bf16"))
    max_length: int = config_field(at_least=2)
    prompt_tokens: int | None = config_field(at_least=1)
    ld_alpha: float | None = config_field(at_least=0, at_most=1)


@dataclass
class OnPolicyConfig(OptimiserConfig, PolicyConfig):
    """What PPO and its like share: iterations, each a batch of rollouts and several epochs of updates on it."""

    iterations: int = config_field(at_least=1)
    group_size: int = config_field(at_least=1)
    minibatch_size: int = config_field(at_least=1)
    epochs: int = config_field(at_least=1)
    schedule: str = config_field(choices=("linear", "constant"))
    warmup_iterations: int = config_field(at_least=0)
    adam_epsilon: float = config_field(above=0)
    query_tokens: list[int] | None = config_field(at_least=1)
    response_tokens: list[int] = config_field(at_least=1)
    stop: list[str] | None = config_field()
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
    validation_prompts: int = config_field(at_least=1)
    best_by: str = config_field(choices=("score", "objective"))
    # These decide whether a reward model is accepted, not what PPO computes, so they are in no identity.
    min_accuracy: float = config_field(hashed=False, at_least=0, at_most=1)
    must_beat_length: bool = config_field(hashed=False)

    @property
    def generates_in_training(self) -> bool:
        return True

    def check(self, key: str, config: Config) -> None:
        super().check(key, config)
        for name, size in (("minibatch_size", self.minibatch_size), ("group_size", self.group_size)):
            if self.batch_size % size:
                raise UserError(f"{key}.{name}={size}: must divide {key}.batch_size={self.batch_size}")
        for name in ("query_tokens", "response_tokens"):
            check_bounds(f"{key}.{name}", getattr(self, name))
        longest = self.response_tokens[1] + (self.query_tokens[1] if self.query_tokens else 1)
        if longest > self.max_length:
            needed = f"prompt and completion may be {longest} tokens"
            raise UserError(f"{key}.max_length={self.max_length}: {needed}; raise it or lower {key}.response_tokens")
        if self.lora and self.adapter.dropout:
            raise UserError(f"{key}.adapter.dropout={self.adapter.dropout}: must be 0, for first ratios of exactly 1")


@stage_config("ppo")
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


@stage_config("grpo")
@dataclass
class GRPOConfig(OnPolicyConfig):
    group_size: int = config_field(at_least=2)


@stage_config("rloo")
@dataclass
class RLOOConfig(OnPolicyConfig):
    group_size: int = config_field(at_least=2)


@dataclass
class HarmfulHelpful:
    """A number of prompts drawn from hh-rlhf's harmless-base and helpful-base test files, as in arXiv 2509.09055.

    Harmful prompts contain one of `words`, as part of a word or, with `whole_words`, as a word; no words admit all.
    """

    harmful: int = config_field(at_least=1)
    helpful: int = config_field(at_least=1)
    words: list[str] = config_field()
    whole_words: bool = config_field()
    seed: int = config_field(at_least=0)


@stage_config("judge_validation")
@stage_config("judge_course")
@stage_config("frontier_rewards")
@dataclass
class EvaluationConfig(StageConfig):
    """A stage that trains nothing. Those registered here have no key of their own."""

    built_by_rescoring = True


@stage_config("generate")
@dataclass
class GenerateConfig(EvaluationConfig):
    repeated_per_dataset = True

    split: str = config_field(choices=("validation", "test"))
    protocol: HarmfulHelpful | None = config_field()
    prompts: int = config_field(at_least=1)
    completions_per_prompt: int = config_field(at_least=1)
    max_new_tokens: int = config_field(at_least=1)
    stop: list[str] | None = config_field()
    temperature: float = config_field(at_least=0)
    precision: str = config_field(choices=("fp32", "bf16"))
    seed: int = config_field(at_least=0)

    def check(self, key: str, config: Config) -> None:
        if self.temperature == 0 and self.completions_per_prompt > 1:
            number = f"{key}.completions_per_prompt={self.completions_per_prompt}"
            raise UserError(f"{number}: are all equal at temperature 0; set {key}.completions_per_prompt=1")
        if self.temperature != 1 and any(getattr(stage, "frontier", False) for stage in config.stages.values()):
            raise UserError(f"{key}.temperature={self.temperature:g}: must be 1 for the exact KL of the frontier")
        if self.protocol is None:
            return
        if not isinstance(config.dataset, HHConfig) or config.dataset.subset != "all":
            raise UserError(f"{key}.protocol: draws from hh-rlhf; set dataset=hh-rlhf dataset.subset=all")
        if self.split != "test":
            raise UserError(f"{key}.split={self.split}: {key}.protocol draws from the test files; set {key}.split=test")
        if config.evaluate_on:
            raise UserError(f"{key}.protocol: draws prompts of hh-rlhf alone; leave out evaluate_on")


@stage_config("base_draws")
@dataclass
class BaseDrawsConfig(GenerateConfig):
    def check(self, key: str, config: Config) -> None:
        others = [stage for stage in config.stages.values() if stage is not self]
        if all(getattr(stage, "opponents", "common") == "common" for stage in others):
            return  # they are not drawn
        super().check(key, config)
        if any(isinstance(stage, GenerateConfig) and stage.seed == self.seed for stage in others):
            raise UserError(f"{key}.seed={self.seed}: is that of other completions, which then are these; set another")


@stage_config("judge_completions")
@dataclass
class JudgeCompletionsConfig(EvaluationConfig):
    repeated_per_dataset = True


@stage_config("judge_accuracy")
@dataclass
class JudgeAccuracyConfig(EvaluationConfig):
    repeated_per_dataset = True

    pairs: int = config_field(at_least=1)


@stage_config("frontier_samples")
@dataclass
class FrontierSamplesConfig(GenerateConfig):
    repeated_per_dataset = False

    def check(self, key: str, config: Config) -> None:
        super().check(key, config)
        if self.completions_per_prompt < 4:
            number = f"{key}.completions_per_prompt={self.completions_per_prompt}"
            raise UserError(f"{number}: must be at least 4; 256 is usual")


@stage_config("course_samples")
@dataclass
class CourseSamplesConfig(GenerateConfig):
    repeated_per_dataset = False


@stage_config("frontier")
@dataclass
class FrontierConfig(EvaluationConfig):
    trusted: float = config_field(above=0, below=1)
    bootstrap_samples: int = config_field(at_least=100)


@stage_config("evaluate")
@dataclass
class EvaluateConfig(EvaluationConfig):
    repeated_per_dataset = True
    inputs_of_own_dataset = ("frontier", "validated", "course")

    # Each of these three decides an input, which is in the identity.
    opponents: str = config_field(hashed=False, choices=("independent", "common"))
    frontier: bool = config_field(hashed=False)
    course: bool = config_field(hashed=False)
    frontier_of: str = config_field(only_with="frontier")
    min_kl: float = config_field(above=0, only_with="frontier")
    beta: float = config_field(above=0)
    harmless_above: float = config_field()
    helpful_above: float = config_field()
    temperature: float = config_field(at_least=0)
    precision: str = config_field(choices=("fp32", "bf16"))
    pairs: int = config_field(at_least=1)
    max_length: int = config_field(at_least=2)
    prompt_tokens: int | None = config_field(at_least=1)
    metrics: list[str] = config_field()

    def check(self, key: str, config: Config) -> None:
        if self.opponents == "independent" and self.temperature == 0:
            raise UserError(f"{key}.opponents=independent: greedy draws are all equal; set {key}.opponents=common")
        trained = config.method.result.partition("/")[0]
        if self.course and getattr(config.stages.get(trained), "save_every", 1) is None:
            reason = f"judges the states that stages.{trained} keeps, and it keeps none"
            raise UserError(f"{key}.course=true: {reason}; set stages.{trained}.save_every=N")
