"""Every typed config: the schema of what can be said on the command line. Values live in `conf/`, never here.

A field made with `setting(...)` carries what a type cannot say: its range, and how it enters an identity.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

NO_DEFAULT: Any = object()


def setting(
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] | None = None,
    in_identity: bool = True,
    is_content: bool = False,
    unless: str | None = None,
    only_with: str | None = None,
    absent_equals: Any = NO_DEFAULT,
) -> Any:
    """A config field whose value must come from YAML or the command line.

    `above`, `at_least`, `below`, `at_most`, `choices` are checked before anything starts.
    `in_identity=False` keeps a nickname out of every identity.
    `is_content=True` names a file or folder by the hash of what it holds, never by its path.
    `unless="path"` leaves the field out of the identity when the field `path` is set.
    `only_with="lora"` leaves the field out of the identity unless the field `lora` is true.
    `absent_equals=x` (for a field added later) leaves the field out of the identity while its value is x, the old
    behaviour, so that what was built before the field existed stays valid.
    """
    ranges: dict[str, Any] = {
        "above": above,
        "at_least": at_least,
        "below": below,
        "at_most": at_most,
        "choices": choices,
    }
    metadata = {name: value for name, value in ranges.items() if value is not None}
    metadata |= {"in_identity": in_identity, "is_content": is_content, "unless": unless, "only_with": only_with}
    if absent_equals is not NO_DEFAULT:
        metadata["absent_equals"] = absent_equals
    return dataclasses.field(default=MISSING, metadata=metadata)


# ------------------------------------------------------------------------------------------------- model, dataset


@dataclass
class Architecture:
    """A GPT-2 from nothing, in transformers' own names."""

    n_embd: int = setting(at_least=1)
    n_layer: int = setting(at_least=1)
    n_head: int = setting(at_least=1)
    n_positions: int = setting(at_least=8)
    vocab_size: int = setting(at_least=259)


@dataclass
class AdapterConfig:
    """LoRA's, beside weights that stay as they are."""

    r: int = setting(at_least=1)
    alpha: int = setting(at_least=1)
    dropout: float = setting(at_least=0, below=1)
    targets: list[str] = setting()


@dataclass
class ModelConfig:
    name: str = setting(in_identity=False)
    id: str | None = setting(unless="path")
    revision: str | None = setting(unless="path")
    path: str | None = setting(is_content=True)
    base: str | None = setting(in_identity=False, choices=("pretrain",))
    architecture: Architecture | None = setting()
    # Where the stages find theirs; it is there that they enter an identity, so a rank changes no answer of the base.
    lora: bool = setting(in_identity=False)
    adapter: AdapterConfig = setting(in_identity=False)


# The preference sets of hh-rlhf; `red-team-attempts` beside them has another schema.
HH_SUBSETS = ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled")


@dataclass
class DatasetConfig:
    """What every dataset has; each adds its own."""

    _target_: str = setting()
    name: str = setting(in_identity=False)
    revision: int = setting(at_least=1)
    pairs: str = setting(choices=("given", "sampled"), absent_equals="given")
    validation: int = setting(at_least=1)


@dataclass
class SyntheticReviewsConfig(DatasetConfig):
    test: int = setting(at_least=1)
    size: int = setting(at_least=1)
    noise: float = setting(at_least=0, at_most=0.5)
    coherence: float = setting(at_least=0, at_most=1)
    seed: int = setting(at_least=0)
    pretraining: int = setting(at_least=1)


@dataclass
class FileDatasetConfig(DatasetConfig):
    """Rows in files."""

    path: str | None = setting(is_content=True)
    seed: int = setting(at_least=0)
    shuffle: bool = setting()
    limit: int | None = setting(at_least=1)


@dataclass
class LocalConfig(FileDatasetConfig):
    path: str = setting(is_content=True)
    test: int = setting(at_least=1)


@dataclass
class HubDatasetConfig(FileDatasetConfig):
    """On the hub at a commit, or a local folder laid out like it. `commit` may say whose it is: `id@commit`."""

    id: str = setting(unless="path")
    commit: str | None = setting(unless="path")


@dataclass
class HHConfig(HubDatasetConfig):
    subset: str = setting(choices=(*HH_SUBSETS, "all"))


@dataclass
class UltraFeedbackConfig(HubDatasetConfig):
    margin: float = setting(at_least=0)


@dataclass
class KaleidoscopeConfig(HubDatasetConfig):
    test: int = setting(at_least=1)


@dataclass
class IMDBConfig(HubDatasetConfig):
    over_characters: int = setting(at_least=0)
    query_tokens: list[int] = setting(at_least=1)


# --------------------------------------------------------------------------------------------------------- stages


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
class SFTConfig(TrainingConfig):
    lora: bool = setting(absent_equals=False)
    adapter: AdapterConfig = setting(only_with="lora")
    learn: str = setting(choices=("answer", "all"))


# TRL's, one for one; `docs/configuration.md` says whose paper each is.
DPO_LOSSES = (
    *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired"),
    *("apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
)


@dataclass
class DPOConfig(TrainingConfig):
    best_by: str = setting(choices=("loss", "accuracy", "margin"))
    lora: bool = setting(absent_equals=False)
    adapter: AdapterConfig = setting(only_with="lora")
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
    """A bidirectional model to start a reward model from."""

    id: str | None = setting(unless="path")
    revision: str | None = setting(unless="path")
    path: str | None = setting(is_content=True)


@dataclass
class RewardConfig(TrainingConfig):
    best_by: str = setting(choices=("loss", "accuracy", "margin"))
    backbone: str = setting(choices=("policy", "encoder"))
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    template: str = setting()
    pooling: str = setting(choices=("last", "mean"))


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
class EvaluateConfig(StageConfig):
    temperature: float = setting(at_least=0, absent_equals=1.0)
    precision: str = setting(choices=("fp32", "bf16"))
    pairs: int = setting(at_least=1)
    max_length: int = setting(at_least=2)


@dataclass
class Stages:
    pretrain: PretrainConfig = dataclasses.field(default_factory=PretrainConfig)
    sft: SFTConfig = dataclasses.field(default_factory=SFTConfig)
    reward: RewardConfig = dataclasses.field(default_factory=RewardConfig)
    pairs: PairsConfig = dataclasses.field(default_factory=PairsConfig)
    reference: ReferenceConfig = dataclasses.field(default_factory=ReferenceConfig)
    dpo: DPOConfig = dataclasses.field(default_factory=DPOConfig)
    ppo: PPOConfig = dataclasses.field(default_factory=PPOConfig)
    sample: SampleConfig = dataclasses.field(default_factory=SampleConfig)
    score: ScoreConfig = dataclasses.field(default_factory=ScoreConfig)
    evaluate: EvaluateConfig = dataclasses.field(default_factory=EvaluateConfig)


# --------------------------------------------------------------------------------- method, scorer, runtime, tracking


@dataclass
class MethodConfig:
    """A small graph: `pipeline` names the stages and each one's inputs; `a/b` is the stage `a` in the role `b`."""

    name: str = setting()
    pipeline: dict[str, Any] = setting()  # each {input: role}, see checks: typed so, OmegaConf cannot merge two files
    start: str = setting()
    result: str = setting()
    same_judge: bool = setting()


@dataclass
class ScorerConfig:
    """What every scorer has; each adds its own."""

    _target_: str = setting()
    name: str = setting(in_identity=False)
    revision: int = setting(at_least=1)


@dataclass
class OracleConfig(ScorerConfig):
    pass


@dataclass
class TrainedConfig(ScorerConfig):
    """The reward model of the `reward` stage: this run's, or the one at `path`."""

    path: str | None = setting(is_content=True)


@dataclass
class PublishedConfig(ScorerConfig):
    """A scorer somebody else trained: on the hub at a commit, or a local copy."""

    id: str | None = setting(unless="path")
    commit: str | None = setting(unless="path")
    path: str | None = setting(is_content=True)
    max_length: int = setting(at_least=8)


@dataclass
class ClassifierConfig(PublishedConfig):
    label: str = setting()
    output: str = setting(choices=("logit", "probability"))


@dataclass
class PairInputConfig(PublishedConfig):
    pass


@dataclass
class RuntimeConfig:
    """Where and how; nothing here is part of an identity."""

    device: str = setting(choices=("auto", "cpu", "cuda"))
    threads: int | None = setting(at_least=1)
    micro_batch: int = setting(at_least=1)
    forward_batch: int = setting(at_least=1)
    gradient_checkpointing: bool = setting()
    log_every: int = setting(at_least=1)
    save_every: int = setting(at_least=1)
    outputs: str = setting()
    multirun: str = setting()
    dry_run: bool = setting()
    progress: bool = setting()


@dataclass
class TrackingConfig:
    enabled: bool = setting()
    project: str = setting()
    entity: str | None = setting()
    folder: str = setting()
    system_metrics: bool = setting()


@dataclass
class Config:
    seed: int = setting(at_least=0)
    jobs: int = setting(at_least=1)
    sweep: str | None = setting()
    grid: list[Any] | None = setting()
    stages: Stages = dataclasses.field(default_factory=Stages)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    dataset: Any = setting()
    method: MethodConfig = dataclasses.field(default_factory=MethodConfig)
    reward: Any = setting()
    judge: Any = setting()
    runtime: RuntimeConfig = dataclasses.field(default_factory=RuntimeConfig)
    tracking: TrackingConfig = dataclasses.field(default_factory=TrackingConfig)


DATASETS: dict[str, type[DatasetConfig]] = {
    "synthetic_reviews": SyntheticReviewsConfig,
    "local": LocalConfig,
    "hh": HHConfig,
    "ultrafeedback": UltraFeedbackConfig,
    "kaleidoscope": KaleidoscopeConfig,
    "imdb": IMDBConfig,
}
SCORERS: dict[str, type[ScorerConfig]] = {
    "oracle": OracleConfig,
    "trained": TrainedConfig,
    "classifier": ClassifierConfig,
    "pair_input": PairInputConfig,
}


def register() -> None:
    """Tell Hydra the schemas: `schema` is the root's, `dataset/_local`, `scorer/_oracle` are its parts'."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for name, node in DATASETS.items():
        store.store(group="dataset", name=f"_{name}", package="dataset", node=node)
    for name, kind in SCORERS.items():
        store.store(group="scorer", name=f"_{name}", node=kind)
