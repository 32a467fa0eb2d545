"""TRL's trainers over rows that are tokenised already, and how their batches split."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset
from torch import Tensor

from prefsweep.config.schema import DatasetConfig, RuntimeConfig
from prefsweep.config.stage import PolicyTrainingConfig
from prefsweep.config.stages import ReferenceLogpsConfig
from prefsweep.data.cache import Cache
from prefsweep.data.sources import load
from prefsweep.data.truncation import Truncation
from prefsweep.data.views import IGNORED
from prefsweep.models.attention import attend_in_fp32
from prefsweep.models.direct_gradients import use_direct_gradients
from prefsweep.models.learned_head import replace_fused_head
from prefsweep.models.shared_prefix import share_prefixes
from prefsweep.stages.generate_pairs import read_pairs
from prefsweep.stages.micro_batches import Batch, pair_parts, trimmed
from prefsweep.stages.training import MicroBatchTrainerMixin


def load_rows(
    view: Callable[..., tuple[Dataset, Truncation]],
    dataset: DatasetConfig,
    tokenizer: Any,
    config: PolicyTrainingConfig | ReferenceLogpsConfig,
    runtime: RuntimeConfig,
    pairs: Path | None = None,
) -> tuple[dict[str, Dataset], dict[str, int]]:
    """Return the rows of validation and train as `view` tokenises them, and the counts of what train has lost.

    They are the dataset's own, or those that the stage `generate_pairs` left in the folder `pairs`.
    """
    rows, metrics = {}, {}
    for split in ("validation", "train"):
        examples = load(dataset, split, tokenizer) if pairs is None else read_pairs(pairs, split)
        rows[split], truncation = view(
            examples, tokenizer, config.max_length, cache=Cache.of(runtime), prompt_tokens=config.prompt_tokens
        )
        metrics = truncation.metrics() | examples.metrics()
    return rows, metrics


class TokenisedTrainerMixin(MicroBatchTrainerMixin):
    """Mixed in before one of TRL's trainers, which then takes its rows as they are, tokenised, and logs exact means.

    The rows carry the reference's log-probabilities where the loss needs them. TRL averages its metrics over batches,
    and here over their parts, so that a smaller last one would count as much as any. These are means over rows or
    tokens, the same however many fit in memory.
    """

    beta: float
    parts: list[tuple[dict[str, float], Mapping[str, float]]]  # each part's metrics, and the weights of their means

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        replace_fused_head(self.model)
        attend_in_fp32(self.model)
        use_direct_gradients(self.model)
        self.parts = []

    def weights(self, inputs: Batch) -> Mapping[str, float]:
        """Return by TRL's names what each metric is the mean of in these inputs: so many tokens or, as "", rows."""
        raise NotImplementedError

    def validation_parts(self, inputs: Batch) -> Iterable[Batch]:
        return [inputs]

    def compute_loss(self, model: Any, inputs: Batch, *rest: Any, **options: Any) -> Any:
        mode = "train" if self.model.training else "eval"
        logged, self._metrics[mode] = self._metrics[mode], defaultdict(list)
        try:
            loss = super().compute_loss(model, inputs, *rest, **options)
            of_part = self._metrics[mode]
        finally:
            self._metrics[mode] = logged
        of_part.pop("num_tokens", None)  # a count, which `count` keeps
        self.parts.append(({name: values[-1] for name, values in of_part.items()}, self.weights(inputs)))
        return loss

    def restart_in_smaller_parts(self, model: Any) -> None:
        super().restart_in_smaller_parts(model)
        self.parts = []

    def means(self) -> dict[str, float]:
        """Return the means over the parts since the last call."""
        values: dict[str, list[tuple[float, float]]] = {}
        for metrics, weights in self.parts:
            for name, value in metrics.items():
                values.setdefault(name, []).append((value, weights.get(name, weights[""])))
        self.parts = []
        means = {name: weighted_mean(*zip(*of_parts, strict=True)) for name, of_parts in values.items()}
        if {"rewards/chosen", "rewards/rejected"} <= means.keys():
            means["rewards/margins"] = means["rewards/chosen"] - means["rewards/rejected"]
            means["rewards/margins_nats"] = means["rewards/margins"] / self.beta
        return means

    def training_step(self, model: Any, inputs: Batch, num_items_in_batch: Any = None) -> Tensor:
        loss = super().training_step(model, inputs, num_items_in_batch)
        for name, mean in self.means().items():
            self._metrics["train"][name].append(mean)
        return loss

    @torch.no_grad()
    def evaluate(self, *rest: Any, **options: Any) -> dict[str, float]:
        self.model.eval()
        for batch in self.get_eval_dataloader():
            for part in self.validation_parts(self._prepare_inputs(batch)):
                with self.compute_loss_context_manager():
                    loss = float(self.compute_loss(self.model, part))
                self.parts[-1][0]["loss"] = loss
        return self.report_validation(self.means())

    def _prepare_dataset(self, dataset: Dataset, *rest: Any, **options: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *rest: Any, **options: Any) -> Dataset:
        return dataset


class TokenTrainer(TokenisedTrainerMixin, trl.SFTTrainer):
    """SFTTrainer over rows of `input_ids` and `labels`."""

    arguments_class = trl.SFTConfig
    own_arguments = {"max_length": None, "packing": False, "dataset_kwargs": {"skip_prepare_dataset": True}}

    def weights(self, inputs: Batch) -> Mapping[str, float]:
        return {"": float((inputs["labels"][:, 1:] != IGNORED).sum())}

    def micro_batches(self, inputs: Batch) -> Iterator[tuple[Batch, float]]:
        learned = (inputs["labels"][:, 1:] != IGNORED).sum()
        for rows in self.rows_of_parts(inputs["attention_mask"]):
            part = {name: value[rows] for name, value in inputs.items()}
            share = (part["labels"][:, 1:] != IGNORED).sum() / learned
            yield trimmed(part), float(share)


class PairTrainer(TokenisedTrainerMixin, trl.DPOTrainer):
    """DPOTrainer over pairs, each of which is one sequence in the model."""

    sequences_per_row = 2
    arguments_class = trl.DPOConfig
    own_arguments = {"max_length": None, "precompute_ref_log_probs": True}

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        share_prefixes(self.model)

    def weights(self, inputs: Batch) -> Mapping[str, float]:
        chosen, rejected = (float(mask.sum()) for mask in inputs["completion_mask"].chunk(2))
        of_chosen = dict.fromkeys(("logits/chosen", "mean_token_accuracy"), chosen)
        return {"": len(inputs["input_ids"]) / 2, "entropy": chosen + rejected, "logits/rejected": rejected} | of_chosen

    def micro_batches(self, inputs: Batch) -> Iterator[tuple[Batch, float]]:
        return pair_parts(inputs, self.rows_of_parts)


def weighted_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)
