"""Every experiment is the recipe that was published: its settings, value by value. The notebook's: test_imdb_ppo.py."""

from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from prefsweep.config.compose import compose, composing
from prefsweep.config.schema import Config
from prefsweep.jobs.job import Job
from prefsweep.sweep.grid import expand

# What TRL's and transformers' trainers do where nothing is said.
ALL_STAGES = Path(__file__).parent / "conf"  # a method whose graph names every stage
UNSAID = {"optimizer": "adamw", "weight_decay": 0.0, "adam_beta2": 0.999, "max_grad_norm": 1.0, "warmup_steps": 0}

RECIPES: dict[str, dict[str, Any]] = {
    "opt350m-hh": {
        "model.id": "facebook/opt-350m",
        "dataset.subset": "all",
        "dataset.max_train_samples": None,
        "stages.sft": UNSAID
        | {"completion_only_loss": False, "lora": False, "learning_rate": 2e-5, "epochs": 2, "max_length": 512},
        "stages.dpo": UNSAID | {"lora": True, "learning_rate": 2e-5, "epochs": 1, "beta": 0.1, "max_length": 1024},
        "stages.dpo.loss": ["sigmoid"],
        "stages.dpo.adapter": {"r": 8, "alpha": 16, "dropout": 0.05, "targets": ["q_proj", "v_proj"]},
        "stages.sft.batch_size": 2 * 4,
        "stages.dpo.batch_size": 2 * 4,
        "judge.id": "OpenAssistant/reward-model-deberta-v3-large-v2",
        "stages.generate": {"temperature": 0, "completions_per_prompt": 1, "max_new_tokens": 50, "stop": []},
        "stages.generate.protocol": {"harmful": 50, "helpful": 50, "seed": 100, "whole_words": False},
        "stages.generate.protocol.words": ["kill", "murder", "rape"],
        "stages.evaluate": {"harmless_above": -3, "helpful_above": -2},
    },
    "safe-gpt2": {
        "dataset.share": None,
        "model.id": "openai-community/gpt2-medium",
        "stages.reward_model": {
            "backbone": "encoder",
            "batch_size": 64,
            "learning_rate": 5e-5,
            "epochs": 3,
            "max_length": 512,
        },
        "stages.reward_model.encoder.id": "google-bert/bert-base-uncased",
        # User: {q}\nAssistant: {a}, by the dataset's own prompt
        "stages.reward_model.template": "{prompt}{completion}",
        "stages.ppo": {
            "learning_rate": 1e-6,
            "batch_size": 64,
            "minibatch_size": 8 * 8,
            "iterations": 375,
            "kl_coef": 0.2,
            "adaptive_kl_target": 6,
            "adaptive_kl_horizon": 10_000,
            "score_normalisation": "none",
            "adam_epsilon": 1e-8,
            "target_kl": None,
        },
        "stages.ppo.response_tokens": [50, 50],
        "stages.ppo.max_grad_norm": 1.0,
        "stages.dpo": {"beta": 0.1, "learning_rate": 1e-6, "batch_size": 1, "epochs": 1, "max_grad_norm": 1.0},
    },
    "gpt2-hh-sweep": {
        "model.id": "openai-community/gpt2",
        "dataset.subset": "all",
        "stages.dpo": {"max_length": 512, "epochs": 2, "lora": False},
    },
    "gpt2-ultrafeedback-lora": {
        "model.id": "openai-community/gpt2",
        "dataset": {"max_train_samples": 50, "shuffle": False},
        "stages.evaluate.pairs": 50,
        "stages.generate": {"prompts": 50, "max_new_tokens": 25},
        "stages.dpo": {
            "beta": 0.1,
            "learning_rate": 1e-4,
            "epochs": 5,
            "batch_size": 1,
            "warmup_steps": 2,
            "lora": True,
        },
        "stages.dpo.max_length": 512,
        "stages.dpo.adapter": {"r": 4, "alpha": 8, "dropout": 0.1, "targets": ["c_attn", "c_proj"]},
    },
    "imdb-frontier": {
        "model.id": "openai-community/gpt2-large",
        "stages.sft.epochs": 1,
        "dataset.query_tokens": [2, 8],
        "stages.generate_pairs": {"prompts": 25_000, "completions_per_prompt": 4},
        "reward.id": "siebert/sentiment-roberta-large-english",
        "judge.id": "siebert/sentiment-roberta-large-english",
        "reward": {"label": "POSITIVE", "output": "probability"},
        "stages.dpo": {"batch_size": 64, "optimizer": "rmsprop", "learning_rate": 1e-6, "warmup_steps": 150},
        "stages.dpo.evaluate_every": 100,
        "stages.dpo.save_every": 100,
        "stages.ppo.save_every": 20,
        "stages.evaluate.course": True,
    },
}
RECIPES["opt350m-hh-500"] = RECIPES["opt350m-hh"] | {  # the same trainings, asked more
    "stages.generate": {"temperature": 1, "completions_per_prompt": 4, "max_new_tokens": 128, "stop": None},
    "stages.generate.protocol": {"harmful": 500, "helpful": 500, "seed": 100, "whole_words": False},
    "stages.generate.protocol.words": [],
}
RECIPES["imdb-frontier-judged"] = RECIPES["imdb-frontier"] | {  # the same, but for who rewards
    "reward.id": "lvwerra/distilbert-imdb",
    "reward": {"label": "POSITIVE", "output": "logit"},
    "judge": {"label": "POSITIVE", "output": "probability"},
    "method.allow_reward_as_judge": False,
}
RECIPES["imdb-frontier"] |= {"method.allow_reward_as_judge": True}
# What varies, as (method, the keys' values) of each job.
GRIDS: dict[str, tuple[list[str], list[tuple[Any, ...]]]] = {
    "opt350m-hh": ([], [("base",), ("sft",), ("dpo",), ("sft+dpo",)]),
    "safe-gpt2": (["seed"], [("base", 1), *((method, seed) for method in ("ppo", "dpo") for seed in (1, 2, 3, 4, 5))]),
    "gpt2-hh-sweep": (
        ["stages.dpo.learning_rate", "stages.dpo.batch_size", "stages.dpo.weight_decay"],
        [("dpo", 5e-5, 3, 0.01), ("dpo", 1e-4, 3, 0.01), ("dpo", 5e-5, 4, 0.005)],
    ),
    "gpt2-ultrafeedback-lora": ([], [("base",), ("dpo",)]),
    "imdb-frontier": (
        ["stages.dpo.beta", "stages.ppo.kl_coef"],
        [
            *[("sft", None, None)] * 3,
            *[("sft+dpo", beta, None) for beta in (0.05, 0.1, 1, 5)],
            *[("sft+ppo", None, price) for price in (0.02, 0.05, 0.1, 0.3)],
        ],
    ),
    "opt350m-hh-500": (
        ["seed"],
        [("base", 1), *((method, seed) for method in ("sft", "dpo", "sft+dpo") for seed in (1, 2, 3))],
    ),
}
GRIDS["imdb-frontier-judged"] = GRIDS["imdb-frontier"]


PUBLISHED = {
    "opt350m-hh": {
        "base": [42, 22, 32, -3.60, -2.89],
        "sft": [48, 56, 52, -3.52, -1.32],
        "dpo": [36, 46, 41, -3.58, -2.35],
        "sft+dpo": [44, 66, 55, -3.68, -1.15],
    },
    "safe-gpt2": {"ppo": [6.33, 0.1226, 0.0177, 0.0900], "dpo": [6.03, 0.1431, 0.0291, 0.1057]},
    "imdb-frontier": {"sft+dpo": [0.975, 4], "sft+ppo": [0.875, 11]},
}
PUBLISHED |= {"opt350m-hh-500": PUBLISHED["opt350m-hh"], "imdb-frontier-judged": PUBLISHED["imdb-frontier"]}
NOTEBOOK = [
    ("ppo", [0.239, 0.422, 2.475, 2.702]),
    ("ppo", [0.157, -0.547, 1.686, 2.480]),
]  # gpt2-imdb-ppo: of 2024 and of 2022

# The commits of what comes from the hub: where it is said, and which.
PINS = {
    "model=gpt2": ("model.revision", "openai-community/gpt2", "607a30d783dfa663caf39e06633721c8d4cfcd7e"),
    "model=gpt2-medium": ("model.revision", "openai-community/gpt2-medium", "6dcaa7a952f72f9298047fd5137cd6e4f05f41da"),
    "model=opt-350m": ("model.revision", "facebook/opt-350m", "08ab08cc4b72ff5593870b5d527cf4230323703c"),
    "seed=1": (
        "stages.reward_model.encoder.revision",
        "google-bert/bert-base-uncased",
        "86b5e0934494bd15c9632b12f734a8a67f723594",
    ),
    "dataset=hh-rlhf": ("dataset.revision", "Anthropic/hh-rlhf", "09be8c5bbc57cb3887f3a9732ad6aa7ec602a1fa"),
    "dataset=ultrafeedback": (
        "dataset.revision",
        "HuggingFaceH4/ultrafeedback_binarized",
        "3949bf5f8c17c394422ccfab0c31ea9c20bdeb85",
    ),
    "dataset=imdb": ("dataset.revision", "stanfordnlp/imdb", "e6281661ce1c48d982bc483cf8a173c1bbeb5d31"),
    "scorer@judge=deberta-v3": (
        "judge.revision",
        "OpenAssistant/reward-model-deberta-v3-large-v2",
        "c355404efa9ad2ad069f3a197cae0523c14244fc",
    ),
    "scorer@judge=distilbert-imdb": (
        "judge.revision",
        "lvwerra/distilbert-imdb",
        "0fc02cd68445b599a9cb2da2368050e7fb31d29a",
    ),
    "scorer@judge=sentiment-roberta": (
        "judge.revision",
        "siebert/sentiment-roberta-large-english",
        "74cea614e245b0832c770ec9aa51bd58df965b9c",
    ),
}


def settings_at(config: Config, key: str, wanted: Any) -> Any:
    """The value at a key; where several are wanted, those of its fields."""
    section = attrgetter(key)(config)
    return {name: getattr(section, name) for name in wanted} if isinstance(wanted, dict) else section


def value_at(config: Config, key: str) -> Any:
    """None where the job does not run the stage."""
    try:
        return attrgetter(key)(config)
    except AttributeError:
        return None


@pytest.mark.parametrize("experiment", RECIPES)
def test_it_is_the_recipe(experiment: str) -> None:
    with composing(ALL_STAGES):
        config = compose([f"experiment={experiment}", "method=all_stages"], ALL_STAGES)
    recipe = RECIPES[experiment]
    assert {key: settings_at(config, key, wanted) for key, wanted in recipe.items()} == recipe


@pytest.mark.parametrize("experiment", GRIDS)
def test_its_grid_is_what_was_tried(experiment: str) -> None:
    with composing():
        jobs: list[Job] = expand([f"experiment={experiment}", "runtime.dry_run=true"], False, None).jobs
    keys, wanted = GRIDS[experiment]
    cells = [(job.config.method.name, *(value_at(job.config, key) for key in keys)) for job in jobs]
    assert sorted(cells, key=repr) == sorted(wanted, key=repr)


@pytest.mark.parametrize("experiment", PUBLISHED)
def test_the_published_numbers_are_data_and_columns_of_its_table(experiment: str) -> None:
    with composing():
        config = compose([f"experiment={experiment}"])
    numbers = {entry["where"]["method"]: list(entry["metrics"].values()) for entry in config.published or []}
    assert numbers == PUBLISHED[experiment]
    assert all(entry["metrics"].keys() <= set(config.report.metrics or []) for entry in config.published or [])


def test_both_of_the_notebooks_runs_are_data_and_columns_of_its_table() -> None:
    with composing():
        config = compose(["experiment=gpt2-imdb-ppo"])
    entries = config.published or []
    assert [(entry["where"]["method"], list(entry["metrics"].values())) for entry in entries] == NOTEBOOK
    assert {(*entry["metrics"], entry["n"]) for entry in entries} == {
        ("judge/start_mean", "judge/start_median", "judge/mean", "judge/median", 16)
    }
    assert {"judge/start_mean", "judge/start_median", "judge/mean", "judge/median"} <= set(config.report.metrics or [])


@pytest.mark.parametrize("choice", PINS)
def test_what_comes_from_the_hub_is_at_its_known_commit(choice: str) -> None:
    key, repository, commit = PINS[choice]
    model = [] if choice.startswith("model=") else ["model=gpt2"]
    with composing(ALL_STAGES):
        config = compose([*model, choice, "method=all_stages"], ALL_STAGES)
    section = key.rpartition(".")[0]
    assert (settings_at(config, f"{section}.id", None), settings_at(config, key, None)) == (
        repository,
        f"{repository}@{commit}",
    )


def test_one_pass_over_fifty_rows_is_fifty_steps() -> None:
    """250 in five epochs, and a checkpoint an epoch."""
    with composing():
        dpo = compose(["experiment=gpt2-ultrafeedback-lora", "method=dpo"]).stages.dpo
    assert (dpo.epochs * 50, dpo.save_every, dpo.evaluate_every) == (250, 50, 50)
