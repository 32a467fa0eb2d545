"""Every typed config: the schema of what can be said on the command line. Values live in `conf/`, never here.

A field is made with `setting(...)`, which says what a type cannot: its range, and how it enters an identity.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore

from prefsweep.config.field import setting
from prefsweep.config.stages import (
    AdapterConfig,
    EvaluateConfig,
    JudgeConfig,
    PretrainConfig,
    SampleConfig,
    StageConfig,
    Stages,
)

# ------------------------------------------------------------------------------------------------- model, dataset


@dataclass
class ModelConfig:
    """On the hub at a commit, a local folder, or from nothing. `revision` may say whose commit it is: `id@commit`."""

    name: str = setting(in_identity=False)
    id: str | None = setting(unless="path")
    revision: str | None = setting(unless="path")
    path: str | None = setting(is_content=True)
    base: str | None = setting(in_identity=False, choices=("pretrain",))
    architecture: Any = setting()  # an Architecture or None
    small: Any = setting(in_identity=False)  # likewise
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
    limit: int | None = setting(at_least=1, absent_equals=None)


@dataclass
class SyntheticReviewsConfig(DatasetConfig):
    test: int = setting(at_least=1)
    size: int = setting(at_least=1)
    noise: float = setting(at_least=0, at_most=0.5)
    coherence: float = setting(at_least=0, at_most=1)
    seed: int = setting(at_least=0)
    pretraining: int = setting(at_least=1)


def learns(stage: StageConfig, dataset: DatasetConfig) -> bool:
    """Whether it reads training rows. A base of the synthetic world is pretrained on the world's reviews instead."""
    if isinstance(stage, PretrainConfig) and isinstance(dataset, SyntheticReviewsConfig):
        return False
    return "dataset" in stage.reads and not isinstance(stage, SampleConfig | JudgeConfig | EvaluateConfig)


@dataclass
class FileDatasetConfig(DatasetConfig):
    """Rows in files."""

    path: str | None = setting(is_content=True)
    seed: int = setting(at_least=0)
    shuffle: bool = setting()
    limit: int | None = setting(at_least=1)  # was there from the first, so null is in every identity


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
    """What every scorer has; each adds its own. With an `architecture` it is made from nothing, with random weights."""

    _target_: str = setting()
    name: str = setting(in_identity=False)
    revision: int = setting(at_least=1)
    architecture: Any = setting(absent_equals=None)  # an EncoderArchitecture or None
    small: Any = setting(in_identity=False)  # likewise


@dataclass
class OracleConfig(ScorerConfig):
    pass


@dataclass
class TrainedConfig(ScorerConfig):
    """The reward model of the `reward` stage: this run's, or the one at `path`."""

    path: str | None = setting(is_content=True)


@dataclass
class PublishedConfig(ScorerConfig):
    """A scorer somebody else trained: on the hub at a commit, or a local copy. `commit` may be `id@commit`."""

    architecture: Any = setting(unless="path", absent_equals=None)
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
    processes: int = setting(at_least=1)
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


FIGURES = ("figure", "curves", "bars", "cost", "efficiency", "power", "effects")


@dataclass
class ReportConfig:
    """How the table of a sweep is laid out; no part of an identity."""

    rows: list[str] | None = setting()
    columns: list[str] = setting()
    metrics: list[str] | None = setting()
    figures: list[str] | None = setting(choices=FIGURES)
    versus: list[str] | None = setting()
    best_by: str | None = setting()
    note: str | None = setting()


@dataclass
class Config:
    seed: int = setting(at_least=0)
    jobs: int = setting(at_least=1)
    sweep: str | None = setting()
    grid: list[Any] | None = setting()
    published: list[Any] | None = setting()
    report: ReportConfig = dataclasses.field(default_factory=ReportConfig)
    stages: Stages = dataclasses.field(default_factory=Stages)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    dataset: Any = setting()
    also: dict[str, Any] = setting()  # of `stages.evaluate.also`, each a DatasetConfig
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
