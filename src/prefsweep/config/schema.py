"""The schema of every section of a config but its stages. Values are in `conf/`, never here.

Each field is a `config_field(...)`, which adds to its type the range of its value and how it enters an identity.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore

from prefsweep.config.field import config_field
from prefsweep.config.stage import AdapterConfig


@dataclass
class HubConfig:
    """What is read from the hub at a revision, or from a local copy at `path`.

    `revision` is a commit, or `id@commit`, which holds for that id alone.
    """

    id: str | None = config_field(unless="path")
    revision: str | None = config_field(unless="path")
    path: str | None = config_field(is_content=True)


@dataclass
class WeightsConfig(HubConfig):
    """The weights of a model, which may also be random ones of an `architecture`; `small` is that of debug=smoke."""

    architecture: Any = config_field(unless="path")  # an Architecture or None
    small: Any = config_field(hashed=False)  # likewise


@dataclass
class ModelConfig(WeightsConfig):
    """A policy's base."""

    name: str = config_field(hashed=False)
    from_scratch: bool = config_field(hashed=False)
    max_length: int = config_field(hashed=False, at_least=2)
    prompt_tokens: int | None = config_field(hashed=False, at_least=1)
    # Defaults of keys of the stages, whose identities they enter: the base's completions do not depend on a rank.
    lora: bool = config_field(hashed=False)
    adapter: AdapterConfig = config_field(hashed=False)


# The preference datasets of hh-rlhf; its `red-team-attempts` has other columns.
HH_SUBSETS = ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled")


# The keys of a dataset that choose among its training rows: no other stage than those that learn from them reads these.
ABOUT_TRAINING_ROWS = ("share", "max_train_samples", "sample_seed")


@dataclass
class DatasetConfig:
    """What every dataset has; each adds keys of its own."""

    _target_: str = config_field()
    name: str = config_field(hashed=False)
    code_version: int = config_field(at_least=1)
    pairs: str = config_field(choices=("dataset", "generated"))
    validation: int = config_field(at_least=1)
    stop: list[str] = config_field()
    max_length: int = config_field(hashed=False, at_least=2)
    share: list[float] | None = config_field(at_least=0, at_most=1)
    max_train_samples: int | None = config_field(at_least=1)
    sample_seed: int | None = config_field(at_least=0)

    @property
    def is_ranked(self) -> bool:
        """Whether its rows hold pairs, or texts with labels to make pairs of, from which a scorer can learn."""
        return self.pairs == "dataset"


@dataclass
class SyntheticReviewsConfig(DatasetConfig):
    test: int = config_field(at_least=1)
    size: int = config_field(at_least=1)
    noise: float = config_field(at_least=0, at_most=0.5)
    coherence: float = config_field(at_least=0, at_most=1)
    seed: int = config_field(at_least=0)
    pretraining: int = config_field(at_least=1)


@dataclass
class FileDatasetConfig(DatasetConfig):
    """A dataset whose rows are read from files."""

    path: str | None = config_field(is_content=True)
    seed: int = config_field(at_least=0)
    shuffle: bool = config_field()


@dataclass
class LocalConfig(FileDatasetConfig):
    pairs: str = config_field(choices=("dataset", "generated", "labelled"))
    path: str = config_field(is_content=True)
    test: int = config_field(at_least=1)


@dataclass
class HubDatasetConfig(HubConfig, FileDatasetConfig):
    """A dataset on the hub, or in a local folder laid out like its repository."""

    id: str = config_field(unless="path")


@dataclass
class HHConfig(HubDatasetConfig):
    subset: str = config_field(choices=(*HH_SUBSETS, "all"))


@dataclass
class UltraFeedbackConfig(HubDatasetConfig):
    margin: float = config_field(at_least=0)


@dataclass
class ColumnsConfig:
    prompt: str | None = config_field()
    chosen: str = config_field()
    rejected: str = config_field()


@dataclass
class HubPairsConfig(HubDatasetConfig):
    train_file: str = config_field()
    test_file: str | None = config_field()
    columns: ColumnsConfig = dataclasses.field(default_factory=ColumnsConfig)
    format: str = config_field(choices=("dialogue", "plain"))
    test: int = config_field(at_least=1)


@dataclass
class KaleidoscopeConfig(HubDatasetConfig):
    test: int = config_field(at_least=1)


@dataclass
class IMDBConfig(HubDatasetConfig):
    over_characters: int = config_field(at_least=0)
    query_tokens: list[int] = config_field(at_least=1)

    @property
    def is_ranked(self) -> bool:
        return True


@dataclass
class MethodConfig:
    """A graph of stages: `pipeline` names the inputs of each role (`config.graph`), and `target` is the last role."""

    name: str = config_field()
    pipeline: dict[str, Any] = config_field()  # a closer type would keep OmegaConf from merging two files
    start: str = config_field()
    result: str = config_field()
    target: str = config_field()
    frontier_of: str = config_field()
    allow_reward_as_judge: bool = config_field()


@dataclass
class ScorerConfig:
    """What every scorer has; each adds keys of its own. With an `architecture` its weights are random."""

    _target_: str = config_field()
    name: str = config_field(hashed=False)
    code_version: int = config_field(at_least=1)
    architecture: Any = config_field()  # an EncoderArchitecture or None
    small: Any = config_field(hashed=False)  # likewise

    @property
    def is_trained_here(self) -> bool:
        """Whether a stage of this run trains it."""
        return False


@dataclass
class OracleConfig(ScorerConfig):
    pass


@dataclass
class CustomScorerConfig(ScorerConfig):
    """A scorer of another package: the class that `_target_` names is passed this config."""

    options: dict[str, Any] = config_field()


@dataclass
class TrainedConfig(ScorerConfig):
    """A reward model that a stage of this run trains, or the one of another run at `path`."""

    path: str | None = config_field(is_content=True)

    @property
    def is_trained_here(self) -> bool:
        return self.path is None


@dataclass
class HubScorerConfig(WeightsConfig, ScorerConfig):
    """A scorer on the hub, or a local copy."""

    max_length: int = config_field(at_least=8)
    prompt_tokens: int | None = config_field(at_least=1)


@dataclass
class ClassifierConfig(HubScorerConfig):
    label: str = config_field()
    output: str = config_field(choices=("logit", "probability"))


@dataclass
class PairInputConfig(HubScorerConfig):
    question: str = config_field(choices=("bare", "prompt"))


@dataclass
class RuntimeConfig:
    """Where and how a job runs; nothing here is part of an identity."""

    device: str = config_field(choices=("auto", "cpu", "cuda"))
    threads: int | None = config_field(at_least=1)
    processes: int = config_field(at_least=1)
    micro_batch: Any = config_field()  # "auto", or a number of rows
    forward_batch: int = config_field(at_least=1)
    gradient_checkpointing: Any = config_field()  # "auto", or a bool
    log_every: int = config_field(at_least=1)
    resume_checkpoint_every: int = config_field(at_least=1)
    outputs: str = config_field()
    dry_run: bool = config_field()
    progress: bool = config_field()


@dataclass
class TrackingConfig:
    enabled: bool = config_field()
    project: str = config_field()
    folder: str = config_field()


@dataclass
class ReportConfig:
    """How the table of a sweep is laid out; no part of an identity."""

    rows: list[str] | None = config_field()
    metrics: list[str] | None = config_field()
    versus: list[str] | None = config_field()
    best_by: str | None = config_field()
    note: str | None = config_field()


@dataclass
class Config:
    seed: int = config_field(at_least=0)
    jobs: int = config_field(at_least=1)
    sweep: str | None = config_field()
    grid: list[Any] | None = config_field()
    published: list[Any] | None = config_field()
    report: ReportConfig = dataclasses.field(default_factory=ReportConfig)
    stages: Any = config_field()  # a StageMap: the StageConfig of each stage that the method runs
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    dataset: Any = config_field()
    evaluate_on: list[str] = config_field()
    other_datasets: dict[str, Any] = config_field()  # those of `evaluate_on`, each a DatasetConfig
    method: MethodConfig = dataclasses.field(default_factory=MethodConfig)
    reward: Any = config_field()
    judge: Any = config_field()
    runtime: RuntimeConfig = dataclasses.field(default_factory=RuntimeConfig)
    tracking: TrackingConfig = dataclasses.field(default_factory=TrackingConfig)


DATASETS: dict[str, type[DatasetConfig]] = {
    "synthetic_reviews": SyntheticReviewsConfig,
    "local": LocalConfig,
    "hh": HHConfig,
    "ultrafeedback": UltraFeedbackConfig,
    "hub_pairs": HubPairsConfig,
    "kaleidoscope": KaleidoscopeConfig,
    "imdb": IMDBConfig,
}
SCORERS: dict[str, type[ScorerConfig]] = {
    "oracle": OracleConfig,
    "custom": CustomScorerConfig,
    "trained": TrainedConfig,
    "classifier": ClassifierConfig,
    "pair_input": PairInputConfig,
}


def register() -> None:
    """Register the schemas with Hydra: `schema` for the root, `dataset/_local`, `scorer/_oracle`, ... for sections."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for name, node in DATASETS.items():
        store.store(group="dataset", name=f"_{name}", package="dataset", node=node)
    for name, kind in SCORERS.items():
        store.store(group="scorer", name=f"_{name}", node=kind)
