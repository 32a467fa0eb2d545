"""What types cannot say about a config: ranges, finite numbers, and settings that contradict each other."""

import dataclasses
import math
from pathlib import Path
from typing import Any

from prefsweep.config.architectures import positions
from prefsweep.config.model_checks import check_adapter, check_encoder, check_model, check_model_folder, check_scorer
from prefsweep.config.schema import Config, DatasetConfig, HHConfig, IMDBConfig, LocalConfig
from prefsweep.config.stages import (
    DPOConfig,
    GenerateConfig,
    OnPolicyConfig,
    PolicyTrainingConfig,
    RewardModelConfig,
    Stages,
    TrainingConfig,
)
from prefsweep.errors import UserError, nearest

# Losses that couple the rows of a batch: splitting the batch would change them.
COUPLED_LOSSES = ("sft", "aot", "aot_unpaired")
# TRL: the others have no valid f-divergence generalisation.
F_DIVERGENCE_LOSSES = ("sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft")

PUBLISHED = {"where", "metrics", "n", "source"}  # of an entry of `published:`


def check(config: Config) -> None:
    """Raise a `UserError` at the first thing that cannot be right."""
    check_ranges(config)
    check_pipeline(config.method.pipeline)
    check_model(config.model)
    check_dataset("dataset", config.dataset)
    for name, dataset in config.other_datasets.items():
        check_dataset(f"other_datasets.{name}", dataset)
        check_scorer("judge", config.judge, dataset)
    if config.other_datasets and config.stages.generate.protocol is not None:
        raise UserError(
            "stages.generate.protocol: asks hh-rlhf's prompts alone; leave out stages.evaluate.other_datasets"
        )
    for name, stage in vars(config.stages).items():
        if isinstance(stage, TrainingConfig):
            check_training(f"stages.{name}", stage)
        if isinstance(stage, PolicyTrainingConfig | OnPolicyConfig) and stage.lora:
            check_adapter(f"stages.{name}.adapter", stage.adapter, config.model)
        if isinstance(stage, OnPolicyConfig):
            check_on_policy(f"stages.{name}", stage)
    check_dpo(config.stages.dpo, config.runtime.micro_batch)
    check_reward("stages.reward_model", config.stages.reward_model)
    check_reward("stages.judge_model", config.stages.judge_model)
    for role in ("reward", "judge"):
        check_scorer(role, getattr(config, role), config.dataset)
    check_sample(config.stages.generate, config.dataset)
    if config.stages.evaluate.frontier:
        check_frontier(config.stages)
    check_lengths(config)
    check_published(config.published)
    if config.report.versus is not None and len(config.report.versus) != 2:
        raise UserError(f"report.versus={config.report.versus}: name two rows, as in report.versus=[ppo,dpo]")
    if config.runtime.processes > 1 and config.jobs > 1:
        raise UserError(
            f"jobs={config.jobs}: runtime.processes={config.runtime.processes} wants the machine; say jobs=1"
        )
    if config.runtime.resume_checkpoint_every % config.runtime.log_every:
        raise UserError(
            f"runtime.resume_checkpoint_every={config.runtime.resume_checkpoint_every}: must be a multiple of "
            f"runtime.log_every={config.runtime.log_every}, or a resumed run would log other windows"
        )


def check_published(entries: list[Any] | None) -> None:
    """One line for the first mistake in an experiment's `published:`."""
    for entry in entries or []:
        if not isinstance(entry, dict) or not {"where", "metrics"} <= entry.keys() <= PUBLISHED:
            raise UserError("published: each entry needs `where` and `metrics`, and may have `n` and `source`")
        if not isinstance(entry["where"], dict) or not isinstance(entry["metrics"], dict):
            raise UserError("published: `where` is {key: value} of the rows meant, `metrics` is {metric: number}")
        for name, value in entry["metrics"].items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UserError(f"published: {name}: must be a number, not {value!r}")


def check_ranges(node: Any, path: str = "") -> None:
    """Every dataclass field against the range in its metadata; every float finite."""
    for field in dataclasses.fields(node):
        key, value = f"{path}{field.name}", getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            check_ranges(value, f"{key}.")
        for item in value if isinstance(value, list) else [value]:
            check_value(key, item, field.metadata)


def check_value(key: str, value: Any, limits: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key}={value}: must be a finite number")
    if value is None or isinstance(value, dict) or dataclasses.is_dataclass(value):
        return
    if "choices" in limits and value not in limits["choices"]:
        choices = limits["choices"]
        raise UserError(f"{key}={value}: no such choice{nearest(str(value), choices)}; there are: {', '.join(choices)}")
    if "above" in limits and not value > limits["above"]:
        raise UserError(f"{key}={value}: must be above {limits['above']}")
    if "at_least" in limits and not value >= limits["at_least"]:
        raise UserError(f"{key}={value}: must be at least {limits['at_least']}")
    if "below" in limits and not value < limits["below"]:
        raise UserError(f"{key}={value}: must be below {limits['below']}")
    if "at_most" in limits and not value <= limits["at_most"]:
        raise UserError(f"{key}={value}: must be at most {limits['at_most']}")


def check_pipeline(pipeline: dict[str, Any]) -> None:
    for role, inputs in pipeline.items():
        if not isinstance(inputs, dict) or not all(isinstance(source, str) for source in inputs.values()):
            raise UserError(f"method.pipeline.{role}={inputs}: must name its inputs, as in {role}: {{policy: base}}")


def check_dataset(key: str, dataset: Any) -> None:
    if not isinstance(dataset, DatasetConfig):
        raise UserError(f"{key}: its YAML names no schema; begin it with `defaults: [_local, _self_]`")
    path = getattr(dataset, "path", None)
    if path is not None and not Path(path).exists():
        raise UserError(f"{key}.path={path}: no such file or folder")
    if isinstance(dataset, LocalConfig) and Path(dataset.path).is_dir():
        raise UserError(f"{key}.path={path}: is a folder; say a file in it, or the dataset it is a copy of")
    if isinstance(dataset, IMDBConfig):
        check_bounds(f"{key}.query_tokens", dataset.query_tokens)
        if dataset.pairs == "dataset":
            raise UserError(f"{key}.pairs=dataset: imdb holds texts, not pairs; say sampled")


def check_training(key: str, stage: TrainingConfig) -> None:
    if stage.patience is not None and stage.evaluate_every is None:
        raise UserError(f"{key}.patience={stage.patience}: needs {key}.evaluate_every, or there is nothing to wait for")
    if stage.checkpoint == "best" and stage.evaluate_every is None:
        raise UserError(f"{key}.checkpoint=best: needs {key}.evaluate_every, or there is nothing to choose from")


def check_dpo(dpo: DPOConfig, micro_batch: int) -> None:
    coupled = [loss for loss in dpo.loss if loss in COUPLED_LOSSES]
    if not dpo.loss:
        raise UserError("stages.dpo.loss=[]: name at least one loss, as in stages.dpo.loss=[sigmoid]")
    if coupled and micro_batch < dpo.batch_size:
        raise UserError(
            f"runtime.micro_batch={micro_batch}: {coupled[0]} couples the pairs of a batch, so it cannot be split; "
            f"say runtime.micro_batch={dpo.batch_size} or lower stages.dpo.batch_size"
        )
    if dpo.loss_weights is not None and len(dpo.loss_weights) != len(dpo.loss):
        raise UserError(f"stages.dpo.loss_weights={dpo.loss_weights}: needs one weight for each of {dpo.loss}")
    if "exo_pair" in dpo.loss and dpo.label_smoothing == 0:
        raise UserError("stages.dpo.label_smoothing=0.0: exo_pair takes its logarithm; the paper uses 1e-3")
    if dpo.use_weighting and {"aot", "aot_unpaired"} & set(dpo.loss):
        raise UserError(
            "stages.dpo.use_weighting=true: aot sorts the pairs, so weights would land on others; say false"
        )
    wrong = [loss for loss in dpo.loss if loss not in F_DIVERGENCE_LOSSES]
    if dpo.f_divergence != "reverse_kl" and wrong:
        raise UserError(f"stages.dpo.f_divergence={dpo.f_divergence}: undefined for {wrong[0]}; say reverse_kl")


def check_reward(key: str, reward: RewardModelConfig) -> None:
    if not reward.template.endswith("{answer}") or reward.template.count("{answer}") > 1:
        raise UserError(f"{key}.template={reward.template}: must end with {{completion}}, and say it once")
    if reward.backbone == "policy" and "model" not in reward.reads:
        raise UserError(f"{key}.reads: backbone=policy starts from the model; say [model,dataset]")
    if reward.backbone == "encoder":
        check_model_folder(f"{key}.encoder.path", reward.encoder.path)
        check_encoder(f"{key}.encoder", reward.encoder)
    if len(reward.share) != 2 or reward.share[0] >= reward.share[1]:
        raise UserError(f"{key}.share={reward.share}: must be where it begins and where it ends, as in [0,0.5]")


def check_sample(sample: GenerateConfig, dataset: DatasetConfig) -> None:
    if sample.temperature == 0 and sample.completions_per_prompt > 1:
        raise UserError(
            f"stages.generate.completions_per_prompt={sample.completions_per_prompt}: at temperature 0 all answers to a prompt are one; say "
            "stages.generate.completions_per_prompt=1"
        )
    if sample.protocol is None:
        return
    if not isinstance(dataset, HHConfig) or dataset.subset != "all":
        raise UserError(
            "stages.generate.protocol: draws from two subsets of hh-rlhf; say dataset=hh-rlhf dataset.subset=all"
        )
    if sample.split != "test":
        raise UserError(f"stages.generate.split={sample.split}: stages.generate.protocol draws from the test files")


def check_frontier(stages: Stages) -> None:
    """KL, and with it what is attainable at one, is about answers drawn as they are."""
    for name in ("generate", "frontier_samples"):
        temperature = getattr(stages, name).temperature
        if temperature != 1:
            raise UserError(f"stages.{name}.temperature={temperature:g}: stages.evaluate.frontier=true needs 1")
    if stages.frontier_samples.completions_per_prompt < 4:
        raise UserError(
            f"stages.frontier_samples.completions_per_prompt={stages.frontier_samples.completions_per_prompt}: must be at least 4; 256 is usual"
        )


def check_on_policy(key: str, stage: OnPolicyConfig) -> None:
    if stage.lora and stage.adapter.dropout:
        raise UserError(f"{key}.adapter.dropout={stage.adapter.dropout}: must be 0, or the first ratios would not be 1")
    for name in ("minibatch_size", "group_size"):
        if stage.batch_size % getattr(stage, name):
            raise UserError(
                f"{key}.{name}={getattr(stage, name)}: must divide {key}.batch_size={stage.batch_size}; "
                f"set {key}.{name} to one of its divisors"
            )
    for name in ("query_tokens", "response_tokens"):
        check_bounds(f"{key}.{name}", getattr(stage, name))
    longest = stage.response_tokens[1] + (stage.query_tokens[1] if stage.query_tokens else 1)
    if longest > stage.max_length:
        raise UserError(
            f"{key}.max_length={stage.max_length}: query and response may be {longest} tokens; raise it, or lower "
            f"{key}.response_tokens"
        )
    if stage.checkpoint == "best" and stage.evaluate_every is None:
        raise UserError(f"{key}.checkpoint=best: needs {key}.evaluate_every, or there is nothing to choose from")


def check_bounds(key: str, bounds: list[int] | None) -> None:
    if bounds is not None and (len(bounds) != 2 or bounds[0] > bounds[1]):
        raise UserError(f"{key}={bounds}: must be the shortest and the longest, as in [4,16]")


def check_lengths(config: Config) -> None:
    """Nothing longer than a model from nothing has positions for."""
    if config.model.architecture is None or config.model.base is None:
        return
    longest = positions(config.model.architecture)
    for name, stage in vars(config.stages).items():
        another = getattr(stage, "backbone", "policy") == "encoder"  # with positions of its own
        if not another and getattr(stage, "max_length", 0) > longest:
            raise UserError(f"stages.{name}.max_length={stage.max_length}: the model has {longest} positions")
    stages = config.stages
    caps = {"sample.max_new_tokens": stages.generate.max_new_tokens}
    caps |= {
        f"{name}.validation_max_new_tokens": getattr(stages, name).validation_max_new_tokens for name in ("sft", "dpo")
    }
    for key, cap in caps.items():
        if cap >= longest:
            raise UserError(f"stages.{key}={cap}: leaves no room for a prompt in the model's {longest} positions")
