"""TRL's trainers at their best settings for what ours is compared on; imported in TRL's own environment by marks.py.

No gradient checkpointing, fused AdamW, precomputed references, nothing saved or reported. A spec names the method, the
model's folder, the rows and the settings; what comes back are the curves that must agree with ours.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

Spec = dict[str, Any]
Curves = dict[str, Any]


def run(spec: Spec, now: Callable[[], float]) -> Curves:
    return METHODS[spec["method"]](spec, now)


def rows_of(spec: Spec) -> list[dict[str, str]]:
    return [json.loads(line) for line in Path(spec["rows"]).read_text().splitlines()]


def shared(spec: Spec) -> dict[str, Any]:
    """Return the arguments that are the same in every trainer; `micro_batch` rows are in one forward pass."""
    return {
        "output_dir": str(Path(spec["folder"]) / "trl"),
        "seed": spec["seed"],
        "data_seed": spec["seed"],
        "max_steps": spec["steps"],
        "per_device_train_batch_size": spec["micro_batch"],
        "gradient_accumulation_steps": spec["batch"] // spec["micro_batch"],
        "learning_rate": spec["learning_rate"],
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "optim": "adamw_torch_fused",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "bf16": spec["precision"] == "bf16",
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": spec["device"] == "cpu",
        "dataloader_pin_memory": spec["device"] != "cpu",
        "report_to": "none",
        "disable_tqdm": True,
    }


def load(spec: Spec, kind: Any = AutoModelForCausalLM, **options: Any) -> Any:
    return kind.from_pretrained(spec["model"], dtype=torch.float32, **options)


def tokenizer_of(spec: Spec) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(spec["model"])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer


def trained(trainer: Any, now: Callable[[], float], built: float) -> Curves:
    """Train; return the losses of the steps and the time at which the trainer was ready."""
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {"built": built, "losses": losses}


def dpo(spec: Spec, now: Callable[[], float]) -> Curves:
    """The trainer precomputes the reference's log-probabilities of all rows when it is built."""
    import trl

    settings = trl.DPOConfig(
        **shared(spec), max_length=512, beta=spec["beta"], precompute_ref_log_probs=True,
        precompute_ref_batch_size=spec["forward_batch"],
    )  # fmt: skip
    begun = now()
    trainer = trl.DPOTrainer(
        model=load(spec), args=settings, train_dataset=Dataset.from_list(rows_of(spec)),
        processing_class=tokenizer_of(spec),
    )  # fmt: skip
    built = now()
    return {"begun": begun} | (trained(trainer, now, built) if spec["steps"] else {"built": built})


def sft_then_dpo(spec: Spec, now: Callable[[], float]) -> Curves:
    saved = str(Path(spec["folder"]) / "sft")
    sft(spec | {"save": saved}, now)
    return dpo(spec | {"model": saved}, now)


def sft(spec: Spec, now: Callable[[], float]) -> Curves:
    import trl

    rows = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows_of(spec)]
    settings = trl.SFTConfig(**shared(spec), max_length=512, completion_only_loss=True)
    trainer = trl.SFTTrainer(
        model=load(spec), args=settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer_of(spec)
    )
    curves = trained(trainer, now, now())
    if "save" in spec:
        trainer.save_model(spec["save"])
    return curves


def kto(spec: Spec, now: Callable[[], float]) -> Curves:
    import trl

    rows = [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in rows_of(spec)
        for side in ("chosen", "rejected")
    ]
    settings = trl.KTOConfig(
        **shared(spec), max_length=512, beta=spec["beta"], precompute_ref_log_probs=True,
        precompute_ref_batch_size=spec["forward_batch"],
    )  # fmt: skip
    trainer = trl.KTOTrainer(
        model=load(spec), args=settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer_of(spec)
    )
    return trained(trainer, now, now())


def reward(spec: Spec, now: Callable[[], float]) -> Curves:
    import trl

    tokenizer = tokenizer_of(spec)
    model = load(spec, AutoModelForSequenceClassification, num_labels=1)
    model.config.pad_token_id = tokenizer.pad_token_id
    settings = trl.RewardConfig(**shared(spec), max_length=512)
    trainer = trl.RewardTrainer(
        model=model, args=settings, train_dataset=Dataset.from_list(rows_of(spec)), processing_class=tokenizer
    )
    return trained(trainer, now, now())


def on_policy(spec: Spec, now: Callable[[], float]) -> Curves:
    """RLOO and GRPO: each step completes `batch` rows in groups and learns from them, once."""
    import trl

    settings_class, trainer_class = {
        "rloo": (trl.RLOOConfig, trl.RLOOTrainer),
        "grpo": (trl.GRPOConfig, trl.GRPOTrainer),
    }[spec["method"]]
    tokenizer = tokenizer_of(spec)
    scorer = AutoModelForSequenceClassification.from_pretrained(spec["scorer"], dtype=torch.float32)
    settings = settings_class(
        **shared(spec), num_generations=spec["group"], max_completion_length=spec["tokens"],
        beta=spec["kl_coef"], temperature=1.0, top_k=0, top_p=1.0,
    )  # fmt: skip
    trainer = trainer_class(
        model=load(spec), args=settings, reward_funcs=scorer, reward_processing_classes=tokenizer,
        train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in rows_of(spec)]),
        processing_class=tokenizer,
    )  # fmt: skip
    curves = trained(trainer, now, now())
    history = trainer.state.log_history
    return curves | {name: [row[name] for row in history if name in row] for name in ("reward", "kl")}


def ppo(spec: Spec, now: Callable[[], float]) -> Curves:
    """An iteration completes `batch` rows; policy and value model, which is of the policy's size, learn together."""
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    tokenizer = tokenizer_of(spec)
    arguments = shared(spec)
    steps = arguments.pop("max_steps")
    scorer = AutoModelForSequenceClassification.from_pretrained(spec["scorer"], dtype=torch.float32)
    value = load(spec, AutoModelForSequenceClassification, num_labels=1)
    torch.nn.init.zeros_(value.score.weight)  # as ours begins
    settings = PPOConfig(
        **arguments, num_mini_batches=spec["batch"] // spec["minibatch"], num_ppo_epochs=spec["epochs"],
        total_episodes=spec["batch"] * steps, response_length=spec["tokens"], temperature=1.0, kl_coef=spec["kl_coef"],
        cliprange=0.2, cliprange_value=0.2, vf_coef=0.1, gamma=1.0, lam=0.95, num_sample_generations=0,
        local_rollout_forward_batch_size=spec["forward_batch"], stop_token="eos",
    )  # fmt: skip
    prompts = [{"input_ids": tokenizer(row["prompt"])["input_ids"]} for row in rows_of(spec)]
    trainer = PPOTrainer(
        args=settings, processing_class=tokenizer, model=load(spec), ref_model=load(spec), reward_model=scorer,
        value_model=value, train_dataset=Dataset.from_list(prompts),
        eval_dataset=Dataset.from_list(prompts[:2]),
    )  # fmt: skip
    built = now()
    trainer.train()
    names = {"reward": "objective/scores", "kl": "objective/kl"}
    history = trainer.state.log_history
    return {"built": built} | {ours: [row[name] for row in history if name in row] for ours, name in names.items()}


def generate(spec: Spec, now: Callable[[], float]) -> Curves:
    """Complete the prompts by transformers' `generate`, in batches of rows of similar length, left-padded."""
    tokenizer = tokenizer_of(spec)
    tokenizer.padding_side = "left"
    model = load(spec).to(spec["device"]).eval()
    prompts = sorted((row["prompt"] for row in rows_of(spec)), key=len)
    torch.manual_seed(0)
    count, begun = 0, now()
    for first in range(0, len(prompts), spec["forward_batch"]):
        batch = tokenizer(prompts[first : first + spec["forward_batch"]], return_tensors="pt", padding=True)
        with torch.no_grad(), torch.autocast(spec["device"], torch.bfloat16, enabled=spec["precision"] == "bf16"):
            completed = model.generate(
                **batch.to(spec["device"]), max_new_tokens=spec["tokens"], do_sample=True, top_k=0, top_p=1.0,
                temperature=1.0, pad_token_id=tokenizer.pad_token_id,
            )  # fmt: skip
        count += len(completed)
    return {"completions": count, "seconds": now() - begun}


METHODS: dict[str, Callable[[Spec, Callable[[], float]], Curves]] = {
    "dpo": dpo, "sft": sft, "sft+dpo": sft_then_dpo, "kto": kto, "reward": reward,
    "rloo": on_policy, "grpo": on_policy, "ppo": ppo, "generate": generate,
}  # fmt: skip
