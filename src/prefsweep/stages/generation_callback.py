"""What a policy generates at each validation of its training: `validation.jsonl`, for any scorer to read afterwards.

The random numbers follow from the prompt's index and the seed, as PPO's do: they are equal at each validation and
across methods. The training's own random state is not touched, so the training is the same without this callback.
"""

import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from prefsweep.config.schema import DatasetConfig
from prefsweep.config.stage import PolicyTrainingConfig
from prefsweep.data.sources import load
from prefsweep.data.truncation import Ids
from prefsweep.data.views import encode_prompts
from prefsweep.models import decoding
from prefsweep.models.batching import batches_by_length
from prefsweep.models.codec import TextCodec, stop_strings
from prefsweep.models.loading import autocast
from prefsweep.pipeline.files import Row
from prefsweep.pipeline.history import History
from prefsweep.pipeline.stage import Context
from prefsweep.stages.generate import distinct_prompts

COMPLETIONS = "validation.jsonl"
SHOWN = 8  # completions that the tracker shows


class GenerateCompletionsCallback(TrainerCallback):
    """Complete the first prompts of the validation split whenever one of TRL's trainers has validated."""

    def __init__(self, config: PolicyTrainingConfig, dataset: DatasetConfig, tokenizer: Any, context: Context):
        self.config = config
        self.codec = TextCodec(tokenizer, stop_strings(config, dataset))
        self.context = context
        self.table = History(context.checkpoints / COMPLETIONS)
        examples = distinct_prompts(load(dataset, "validation", tokenizer))[: config.validation_prompts]
        self.prompts: list[Ids] = encode_prompts([example.prompt for example in examples], tokenizer)

    def on_evaluate(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        rows = self.completions(rest["model"])
        for row in rows:
            self.table.append(state.global_step, row)
        shown = [{"step": state.global_step, **row} for row in rows[:SHOWN]]
        self.context.history.announce(state.global_step, {"completions": shown} if shown else {})

    def completions(self, model: Any) -> list[Row]:
        """Return a row a prompt; a prompt that is too long for the model loses its beginning.

        The validation before has left the model in evaluation mode: without dropout, and without gradient
        checkpointing, which would keep no cache.
        """
        cap = self.config.validation_max_new_tokens
        room = model.config.max_position_embeddings - cap
        prompts = [prompt[-room:] for prompt in self.prompts]
        rows: list[Row] = [{} for _ in prompts]
        for indices in batches_by_length(list(map(len, prompts)), self.context.runtime.forward_batch):
            numbers = decoding.uniforms([f"validation/{index}" for index in indices], cap, self.config.seed)
            batch = [prompts[index] for index in indices]
            with autocast(self.config.precision, model.device):
                completions = decoding.sample(model, batch, numbers, temperature=1, **self.codec.sampling)
            decoded = self.codec.prompts(batch), self.codec.completions(batch, completions)
            ended = map(self.codec.has_ended, completions)
            for index, prompt, completion, has_end in zip(indices, *decoded, ended, strict=True):
                rows[index] = {"prompt": prompt, "completion": completion, "ended": has_end}
        return rows

    def export_to(self, folder: Path) -> None:
        """Copy the table into the stage's folder, unless `validation_prompts` is 0."""
        if self.prompts:
            shutil.copy(self.table.path, folder / COMPLETIONS)
