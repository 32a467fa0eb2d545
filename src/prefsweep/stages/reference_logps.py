"""reference_logps: log π_ref of both completions of each pair, by TRL's own forward: the first DPO loss is ln 2.

Computed in chunks that survive a kill; all runs with this reference and dataset share them. `precision`, `max_length`
and `ld_alpha` must be those of the `dpo` stage that reads them.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import trl
from datasets import Dataset
from tqdm.auto import tqdm

from prefsweep.config.schema import DatasetConfig, ModelConfig
from prefsweep.config.stages import ReferenceLogpsConfig
from prefsweep.data.views import pair_rows
from prefsweep.models.batching import batches_by_length
from prefsweep.models.flops import forward_flops
from prefsweep.models.loading import device, load_policy, load_tokenizer
from prefsweep.models.precision import weights_cast_once
from prefsweep.pipeline.files import atomic
from prefsweep.pipeline.stage import Context
from prefsweep.stages.trainers import PairTrainer, load_rows

REFERENCE_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
PROMPT = "prompt_ids"
CHUNK = 4096  # rows between two saves


def read_reference(folder: Path, split: str) -> np.ndarray:
    """Return [2, pairs]: log π_ref of the chosen and of the rejected completions, in the order of the split."""
    values: np.ndarray = np.load(folder / f"{split}.npy")
    return values


def run(
    config: ReferenceLogpsConfig,
    *,
    model: ModelConfig,
    dataset: DatasetConfig,
    folder: Path,
    context: Context,
    policy: Path | None = None,
    pairs: Path | None = None,
) -> dict[str, Any]:
    tokenizer = load_tokenizer(model, policy)
    rows, data_metrics = load_rows(pair_rows, dataset, tokenizer, config, context.runtime, pairs)
    trainer = forward_trainer(config, load_policy(model, policy), tokenizer, rows["train"], context)
    for split, table in rows.items():
        np.save(folder / f"{split}.npy", reference_logps(trainer, table, split, context))
    return {"pairs": sum(map(len, rows.values())), **data_metrics}


def forward_trainer(config: ReferenceLogpsConfig, model: Any, tokenizer: Any, rows: Dataset, context: Context) -> Any:
    """Return a DPOTrainer that trains nothing: the dpo stage must reproduce the numbers of its forward."""
    settings = trl.DPOConfig(
        output_dir=str(context.checkpoints),
        **PairTrainer.own_arguments,
        bf16=config.precision == "bf16",
        ld_alpha=config.ld_alpha,
        disable_dropout=True,
        gradient_checkpointing=False,
        use_cpu=device(context.runtime).type == "cpu",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = PairTrainer(model=model, args=settings, train_dataset=rows, processing_class=tokenizer)
    trainer.model.to(trainer.args.device)
    return trainer


def reference_logps(trainer: Any, rows: Dataset, split: str, context: Context) -> np.ndarray:
    """Return [2, rows] of `trainer.compute_ref_log_probs`, chunk by chunk, and count their cost.

    Both of a row's sequences begin with `prompt_ids`. A chunk that an earlier attempt finished is read, not computed.
    """
    context.cost.add(flops=forward_flops(trainer.model, sequence_tokens(rows, trainer.args.max_length)))
    trainer.model.eval()
    chunks = []
    bar = tqdm(total=len(rows), desc=f"reference {split}", unit="row", disable=not context.runtime.progress or None)
    for first in range(0, len(rows), CHUNK):
        last = min(first + CHUNK, len(rows))
        path = context.checkpoints / f"{split}-{first}.npy"
        if not path.is_file():
            values = chunk_logps(trainer, rows.select(range(first, last)), context.runtime.forward_batch, bar)
            with atomic(path) as temporary, temporary.open("wb") as file:
                np.save(file, values)
        chunks.append(np.load(path))
        bar.update(last - bar.n)
    bar.close()
    return np.concatenate(chunks, axis=1)


def completion_columns(rows: Dataset) -> list[str]:
    return [name for name in rows.column_names if name.endswith("_ids") and name != PROMPT]


def sequence_tokens(rows: Dataset, max_length: int | None) -> int:
    """Return the tokens of all sequences, each a prompt with one of its completions, cut at `max_length`."""

    def lengths(column: str) -> np.ndarray:
        return pc.list_value_length(rows.data.column(column)).to_numpy()  # type: ignore[no-any-return]

    sequences = np.stack([lengths(PROMPT) + lengths(column) for column in completion_columns(rows)])
    return int((sequences if max_length is None else sequences.clip(max=max_length)).sum())


def chunk_logps(trainer: Any, rows: Dataset, batch_size: int, bar: Any) -> np.ndarray:
    """Return [2, rows]; rows of similar length share a batch."""
    examples = rows.to_list()
    columns = completion_columns(rows)
    lengths = [len(row[PROMPT]) + max(len(row[column]) for column in columns) for row in examples]
    values = np.empty((2, len(examples)), dtype=np.float32)
    with trainer.accelerator.autocast(), weights_cast_once(trainer.model):
        for indices in batches_by_length(lengths, batch_size):
            inputs = trainer._prepare_inputs(trainer.data_collator([examples[index] for index in indices]))
            for side, logps in enumerate(trainer.compute_ref_log_probs(trainer.model, inputs)):
                values[side, indices] = logps.float().cpu().numpy()
            bar.update(len(indices))
    return values
