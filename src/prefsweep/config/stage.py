"""Base classes of the stages' typed configs, and the registry of stages.

A stage declares everything about itself: its keys, what it reads, and the facts that the rest of the program asks for.

A new stage is a subclass of `StageConfig` registered under its name, a YAML of that name in `conf/stage/`, and the
function that the YAML's `_target_` names:

    @stage_config("kto")
    @dataclass
    class KTOConfig(PolicyTrainingConfig):
        leaves_policy = True
        desirable_weight: float = config_field(above=0)

A package of your own registers its stages by an entry point of the group `prefsweep.stages` that names the module in
which they are decorated, and has their YAML in a folder given as `-cd DIR` (docs/extending.md). Nothing here imports
torch, because a command line is checked before any library is loaded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, ClassVar, TypeVar

from prefsweep.config.field import config_field
from prefsweep.errors import UserError

Kind = TypeVar("Kind", bound="type[StageConfig]")

STAGES: "dict[str, type[StageConfig]]" = {}


def stage_config(name: str) -> Callable[[Kind], Kind]:
    """Register the decorated class as the schema of `conf/stage/NAME.yaml`."""

    def register(kind: Kind) -> Kind:
        STAGES[name], kind.stage_name = kind, name
        return kind

    return register


def load_stages() -> None:
    """Import the modules in which this package and others register their stages."""
    import_module("prefsweep.config.stages")
    for plugin in entry_points(group="prefsweep.stages"):
        plugin.load()


class StageMap(dict[str, Any]):
    """The stages of one job by name; `stages.dpo` is `stages["dpo"]`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"this job runs no stage {name}; it runs {', '.join(self)}") from None


@dataclass
class StageConfig:
    """What every stage has. `code_version` is raised when the stage's code changes what it computes; `reads` names the
    sections of the config that it is passed.

    The class variables are facts about the stage that decide how the rest of the program treats it.
    """

    # The name under which it is registered.
    stage_name: ClassVar[str] = ""
    # It learns from training rows, so the dataset's choice of them is part of what it computes.
    reads_training_rows: ClassVar[bool] = False
    # It needs a preferred completion in each training row: rows that are prompts alone are refused before it starts.
    needs_chosen: ClassVar[bool] = False
    # It compares two completions of a prompt, so rows of single completions with a label are refused.
    needs_pairs: ClassVar[bool] = False
    # Its result is a policy, which can be exported and generate completions.
    leaves_policy: ClassVar[bool] = False
    # It is run once more for each dataset that `evaluate_on` names.
    repeated_per_dataset: ClassVar[bool] = False
    # The inputs that such a repetition leaves out, because they describe the run's own dataset.
    inputs_of_own_dataset: ClassVar[tuple[str, ...]] = ()
    # `prefsweep rescore` may build it: it trains neither a policy nor a reward.
    built_by_rescoring: ClassVar[bool] = False
    # The section of the scorer that it trains, `reward` or `judge`.
    trains_scorer: ClassVar[str | None] = None

    _target_: str = config_field()
    code_version: int = config_field(at_least=1)
    reads: list[str] = config_field()

    def learns_from(self, dataset: Any) -> bool:
        """Whether the stage reads the training rows of this dataset."""
        return self.reads_training_rows

    @property
    def own_rows(self) -> dict[str, Any]:
        """The choice of training rows that the stage makes itself, by the dataset's keys, in place of the dataset's."""
        return {}

    @property
    def generates_in_training(self) -> bool:
        """Whether the stage saves what its policy generates at each validation, for `judge_validation`."""
        return False

    @property
    def sections(self) -> list[str]:
        """The sections of the config that the stage is passed: those of `reads` that its settings need."""
        return self.reads

    def ignores_input(self, name: str) -> bool:
        """Whether a setting makes an input that the method's graph names irrelevant."""
        return False

    def hub_sections(self) -> dict[str, Any]:
        """Return the fields that name a repository on the hub, by their keys."""
        return {}

    def check(self, key: str, config: Any) -> None:
        """Raise a `UserError` for settings that contradict each other; `key` is `stages.<name>`."""


# The targets of adapters on every linear layer but the vocabulary head, whatever the architecture calls them.
ALL_LINEAR = ["all-linear"]


@dataclass
class AdapterConfig:
    """LoRA: low-rank adapters are trained while the other weights stay frozen."""

    r: int = config_field(at_least=1)
    alpha: int = config_field(at_least=1)
    dropout: float = config_field(at_least=0, below=1)
    targets: list[str] = config_field()


@dataclass
class OptimiserConfig(StageConfig):
    """What every training loop has, over rows or over rollouts."""

    reads_training_rows = True

    seed: int = config_field(at_least=0)
    batch_size: int = config_field(at_least=1)
    learning_rate: float = config_field(above=0)
    max_grad_norm: float = config_field(above=0)
    precision: str = config_field(choices=("fp32", "bf16"))
    max_length: int = config_field(at_least=2)
    evaluate_every: int | None = config_field(at_least=1)
    save_every: int | None = config_field(at_least=1)
    checkpoint: str = config_field(choices=("last", "best"))

    def check(self, key: str, config: Any) -> None:
        if self.checkpoint == "best" and self.evaluate_every is None:
            raise UserError(f"{key}.checkpoint=best: is chosen by validations; set {key}.evaluate_every")


@dataclass
class TrainingConfig(OptimiserConfig):
    """A training loop over rows. A batch is one optimiser step, however `runtime.micro_batch` splits it."""

    epochs: float = config_field(above=0)
    max_steps: int | None = config_field(at_least=1)
    optimizer: str = config_field(choices=("adamw", "rmsprop"))
    schedule: str = config_field(choices=("linear", "cosine", "constant_with_warmup"))
    warmup_steps: float = config_field(at_least=0)
    weight_decay: float = config_field(at_least=0)
    adam_beta2: float = config_field(above=0, below=1)
    best_by: str = config_field(choices=("loss",))


@dataclass
class PolicyConfig(StageConfig):
    """What every stage has that trains a policy, or adapters beside its frozen weights."""

    leaves_policy = True

    lora: bool = config_field()
    adapter: AdapterConfig = config_field(only_with="lora")


@dataclass
class PolicyTrainingConfig(TrainingConfig, PolicyConfig):
    """A training loop of a policy, which generates completions at each validation."""

    prompt_tokens: int | None = config_field(at_least=1)
    validation_prompts: int = config_field(at_least=0)
    validation_max_new_tokens: int = config_field(at_least=1, only_with="validation_prompts")
    stop: list[str] | None = config_field(only_with="validation_prompts")

    @property
    def generates_in_training(self) -> bool:
        return self.validation_prompts > 0


def check_bounds(key: str, bounds: list[int] | None) -> None:
    """Check a range that is written as [least, most]."""
    if bounds is not None and (len(bounds) != 2 or bounds[0] > bounds[1]):
        raise UserError(f"{key}={bounds}: must be the shortest and the longest, as in [4,16]")


def check_share(key: str, share: list[float]) -> None:
    """Check a range of prompts, each of which a hash places between 0 and 1."""
    if len(share) != 2 or share[0] >= share[1]:
        raise UserError(f"{key}={share}: must be the beginning and the end of a range, as in [0,0.5]")
