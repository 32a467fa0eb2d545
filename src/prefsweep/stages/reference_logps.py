"""reference: log π_ref of both answers of every pair, by TRL's own forward, so that the first DPO loss is ln 2.

Written in chunks that survive a kill; whoever shares the reference and the data shares the result.
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
from prefsweep.data.cache import Cache
from prefsweep.data.views import pair_rows
from prefsweep.models.flops import forward_flops
from prefsweep.models.loading import device, load_policy, load_tokenizer
from prefsweep.pipeline.stage import Context
from prefsweep.stages.generate_pairs import load_pairs
from prefsweep.stages.trainers import PairTrainer

REFERENCE_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
TEXTS = ("prompt_ids", "chosen_ids", "rejected_ids")
CHUNK = 4096  # pairs between two saves


def read_reference(folder: Path, split: str, pairs: int) -> np.ndarray:
    """[2, pairs]: of the chosen and of the rejected answers, in the order of the split."""
    values: np.ndarray = np.load(folder / f"{split}.npy")
    if values.shape != (2, pairs):
        raise RuntimeError(f"{folder}/{split}.npy has the shape {values.shape}, not {(2, pairs)}")
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
    rows, told = {}, {}
    for split in ("validation", "train"):
        examples = load_pairs(dataset, split, tokenizer, pairs)
        rows[split], _ = pair_rows(examples, tokenizer, config.max_length, Cache.of(context.runtime))
        told = examples.metrics()
    del examples  # all its texts, in memory no longer
    trainer = forward_trainer(config, load_policy(model, policy), tokenizer, rows["train"], context)
    for split, table in rows.items():
        context.cost.add(flops=forward_flops(trainer.model, tokens_of(table)))
        np.save(folder / f"{split}.npy", logprobs(trainer, table, split, context))
    return {"pairs": sum(map(len, rows.values())), **told}


def tokens_of(pairs: Dataset) -> int:
    """Of both texts of every pair, the prompt in each."""
    found = {name: int(pc.sum(pc.list_value_length(pairs.data.column(name))).as_py() or 0) for name in TEXTS}
    return 2 * found["prompt_ids"] + found["chosen_ids"] + found["rejected_ids"]


def forward_trainer(config: ReferenceLogpsConfig, model: Any, tokenizer: Any, rows: Dataset, context: Context) -> Any:
    """A DPOTrainer that trains nothing: it owns the forward whose numbers the dpo stage must meet again."""
    settings = trl.DPOConfig(
        output_dir=str(context.checkpoints),
        precompute_ref_log_probs=True,
        bf16=config.precision == "bf16",
        ld_alpha=config.ld_alpha,
        max_length=None,
        disable_dropout=True,
        gradient_checkpointing=False,
        use_cpu=device(context.runtime).type == "cpu",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = PairTrainer(model=model, args=settings, train_dataset=rows, processing_class=tokenizer)
    trainer.model.to(trainer.args.device).eval()
    return trainer


def logprobs(trainer: Any, pairs: Dataset, split: str, context: Context) -> np.ndarray:
    """[2, pairs], chunk by chunk; a chunk that an earlier attempt finished is read, not computed."""
    done = []
    bar = tqdm(total=len(pairs), desc=f"reference {split}", unit="pair", disable=not context.runtime.progress or None)
    for first in range(0, len(pairs), CHUNK):
        last = min(first + CHUNK, len(pairs))
        kept = context.checkpoints / f"{split}-{first}.npy"
        if not kept.is_file():
            aside = kept.with_name(f".{kept.name}")
            np.save(aside, chunk(trainer, pairs.select(range(first, last)), context.runtime.forward_batch, bar))
            aside.rename(kept)
        done.append(np.load(kept))
        bar.update(last - bar.n)
    bar.close()
    return np.concatenate(done, axis=1)


def chunk(trainer: Any, pairs: Dataset, batch: int, bar: Any) -> np.ndarray:
    """[2, pairs]. Pairs of like length share a batch, so that little of it is padding."""
    rows = pairs.to_list()
    longest = [len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) for row in rows]
    order = np.argsort(longest, kind="stable")
    values = np.empty((2, len(rows)), dtype=np.float32)
    for first in range(0, len(rows), batch):
        picked = order[first : first + batch]
        inputs = trainer._prepare_inputs(trainer.data_collator([rows[index] for index in picked]))
        for side, found in enumerate(trainer.compute_ref_log_probs(trainer.model, inputs)):
            values[side, picked] = found.float().cpu().numpy()
        bar.update(len(picked))
    return values
