"""reward_model and judge_model: a reward model from pairs, −log σ(r(x, y_w) − r(x, y_l)) (Bradley and Terry 1952).

The loss leaves a constant in all rewards free; `center_rewards_coefficient` times the mean of (r_w + r_l)² draws it to
0 (Eisenstein et al. 2023, eq. 2).

transformers' Trainer, not TRL's RewardTrainer: that one drops rows that are too long, needs an EOS that encoders lack,
and pools by the pad token's id. Each text here is read alone, truncated as it will be when it is scored.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import AutoModel, AutoTokenizer, set_seed

from prefsweep.config.schema import DatasetConfig, ModelConfig
from prefsweep.config.stages import RewardModelConfig
from prefsweep.data.cache import Cache, Columns
from prefsweep.data.frames import templated_rows
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.sources import load_ranked
from prefsweep.data.truncation import Truncation
from prefsweep.data.views import IN_MEMORY, view_of
from prefsweep.errors import UserError
from prefsweep.evaluation import ranking
from prefsweep.models.attention import attend_in_fp32
from prefsweep.models.direct_gradients import use_direct_gradients
from prefsweep.models.heads import REWARD, RewardModel, pad_right
from prefsweep.models.loading import (
    from_pretrained,
    load_fp32,
    load_policy,
    load_tokenizer,
    longest_row,
    random_encoder,
    source_of,
)
from prefsweep.models.padding_free import why_not
from prefsweep.models.shared_prefix import attention_masks, pack
from prefsweep.pipeline.files import write_json
from prefsweep.pipeline.stage import Context
from prefsweep.stages.callbacks import STEPS
from prefsweep.stages.micro_batches import Batch, pair_parts
from prefsweep.stages.training import MicroBatchTrainerMixin, train

SIDES = ("chosen", "rejected")


def run(
    config: RewardModelConfig,
    *,
    dataset: DatasetConfig,
    folder: Path,
    context: Context,
    model: ModelConfig | None = None,
    policy: Path | None = None,
) -> dict[str, Any]:
    set_seed(config.seed)
    backbone, tokenizer = start(config, model, policy)
    key, positions = f"stages.{config.stage_name}", longest_row(backbone)
    if config.max_length > positions:
        raise UserError(f"{key}.max_length={config.max_length}: the backbone has {positions} positions")
    cache = Cache.of(context.runtime)
    examples = load_ranked(dataset, "train")
    train_rows, truncation = pair_rows(examples, tokenizer, config, cache)
    held_out = load_ranked(dataset, "validation")
    rows = {"train": train_rows, "validation": pair_rows(held_out, tokenizer, config, cache)[0]}
    trainer = reward_trainer(config, RewardModel(backbone), tokenizer, rows, context)
    lengths = ([len(pair.completion(side)) for pair in held_out] for side in SIDES)
    trainer.length_accuracy = ranking.length_accuracy(*lengths)
    metrics = train(trainer, config, folder, context) | truncation.metrics() | examples.metrics()
    head = {name: getattr(config, name) for name in ("template", "max_length", "prompt_tokens")}
    write_json(folder / REWARD, {**head, "metrics": metrics})
    for checkpoint in folder.glob(f"{STEPS}/*"):  # reward models too, but the metrics are the result's
        write_json(checkpoint / REWARD, {**head, "metrics": {}})
    return metrics


def start(config: RewardModelConfig, model: ModelConfig | None, policy: Path | None) -> tuple[Any, Any]:
    """Return the backbone before training, and its tokenizer."""
    if config.backbone == "policy":
        assert model is not None  # checked with the config
        return load_policy(model, policy).base_model, load_tokenizer(model, policy)
    if config.encoder.architecture is not None and config.encoder.path is None:
        return random_encoder(AutoModel, config.encoder.architecture)
    source = (*source_of(config.encoder, None), f"stages.{config.stage_name}.encoder.path")
    return load_fp32(AutoModel, *source), from_pretrained(AutoTokenizer, *source)


def pair_rows(
    examples: Sequence[PreferenceExample], tokenizer: Any, config: RewardModelConfig, cache: Cache = IN_MEMORY
) -> tuple[Dataset, Truncation]:
    """Return the ids of both texts of each pair. Nothing is dropped; truncation is counted a text at a time."""

    def make(part: Sequence[PreferenceExample], truncation: Truncation) -> Columns:
        completions = [example.completion(side) for side in SIDES for example in part]
        prompts = [example.prompt for example in part] * 2
        ended = [getattr(example, f"{side}_ended") for side in SIDES for example in part]
        lengths = config.max_length, config.prompt_tokens
        rows = templated_rows(prompts, completions, tokenizer, config.template, *lengths, ended)
        truncation.add(rows.cut)
        return {"chosen": rows.ids[: len(part)], "rejected": rows.ids[len(part) :]}

    view = view_of("judged", config.max_length, config.prompt_tokens) | {"template": config.template}
    return cache.rows(view, examples, tokenizer, make)


def collate(rows: list[dict[str, Any]], pad: int | None) -> Batch:
    """Stack chosen on rejected: row i and row pairs + i are one pair."""
    ids, attention = pad_right([row[side] for side in SIDES for row in rows], pad)
    return {"input_ids": ids, "attention_mask": attention}


def pair_rewards(model: RewardModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Return what `model(input_ids, attention_mask)` does, the prompt of each pair read once where the backbone can."""
    if why_not(model.backbone):
        rewards: Tensor = model(input_ids, attention_mask)
        return rewards
    packed = pack(input_ids, attention_mask, model.backbone)
    masks = attention_masks(packed, model.backbone)
    output = model.backbone(input_ids=packed.ids, position_ids=packed.positions, attention_mask=masks)
    last = packed.cells.gather(1, attention_mask.sum(-1, keepdim=True) - 1).squeeze(1)
    return model.rewards(output.last_hidden_state.flatten(0, 1)[last])


class RewardTrainer(MicroBatchTrainerMixin):
    own_arguments = {"remove_unused_columns": False}
    sequences_per_row = 2
    labels_per_row = 1.0
    config: RewardModelConfig
    length_accuracy: float  # on the validation pairs: the baseline of its accuracy

    def micro_batches(self, inputs: Batch) -> Iterator[tuple[Batch, float]]:
        return pair_parts(inputs, self.rows_of_parts)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Give the head, which starts at zero, a learning rate of its own."""
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        head = set(self.model.head.parameters())
        rate = self.config.head_learning_rate or self.config.learning_rate
        for group in list(optimizer.param_groups):  # weights that decay, and biases
            own = [weight for weight in group["params"] if weight in head]
            group["params"] = [weight for weight in group["params"] if weight not in head]
            optimizer.add_param_group({**group, "params": own, "lr": rate})
        return optimizer

    def compute_loss(self, model: Any, inputs: Batch, *rest: Any, **options: Any) -> Tensor:
        chosen, rejected = pair_rewards(model, **inputs).chunk(2)
        loss = -logsigmoid(chosen - rejected).mean()
        if self.config.center_rewards_coefficient:
            loss = loss + self.config.center_rewards_coefficient * (chosen + rejected).square().mean()
        return loss

    @torch.no_grad()
    def evaluate(self, *rest: Any, **options: Any) -> dict[str, float]:
        """Validate on all pairs at once: the calibration error is not a mean over batches."""
        self.model.eval()
        batches = []
        for batch in self.get_eval_dataloader():
            with self.compute_loss_context_manager():
                batches.append(self.model(**self._prepare_inputs(batch)).cpu().view(2, -1))
        ranked = ranking.metrics(*torch.cat(batches, dim=1)) | {"length_accuracy": self.length_accuracy}
        return self.report_validation(ranked)


def reward_trainer(
    config: RewardModelConfig, model: RewardModel, tokenizer: Any, rows: dict[str, Dataset], context: Context
) -> RewardTrainer:
    collator = partial(collate, pad=tokenizer.pad_token_id)
    attend_in_fp32(model)
    trainer = RewardTrainer.build(config, model, tokenizer, rows, context, collator)
    use_direct_gradients(trainer.model.backbone)  # on its device now
    trainer.config = config
    return trainer
