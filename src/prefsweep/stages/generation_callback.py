"""What a policy answers at each validation while it is trained: `validation.jsonl`, for any scorer to read afterwards.

The draws belong to a prompt's place and the seed, as ppo's do: at each validation, and from one method to the next,
they are equal. Nothing of the training's own randomness is used, so it goes as it would unasked.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from prefsweep.config.stage import PolicyTrainingConfig
from prefsweep.data.schema import PreferenceExample
from prefsweep.data.truncation import Ids
from prefsweep.data.views import encode_prompts
from prefsweep.models import decoding
from prefsweep.models.loading import autocast
from prefsweep.pipeline.history import History
from prefsweep.pipeline.stage import Context
from prefsweep.stages.generate import distinct_prompts

COMPLETIONS = "validation.jsonl"
SHOWN = 8  # answers in a table


class GenerateCompletionsCallback(TrainerCallback):
    """Answers the first prompts of the validation split whenever one of TRL's trainers has validated."""

    def __init__(
        self, config: PolicyTrainingConfig, held_out: Sequence[PreferenceExample], tokenizer: Any, context: Context
    ):
        self.config = config
        self.tokenizer = tokenizer
        self.context = context
        self.table = History(context.checkpoints / COMPLETIONS)
        asked = distinct_prompts(held_out)[: config.validation_prompts]
        self.prompts: list[Ids] = encode_prompts([example.prompt for example in asked], tokenizer)

    def on_evaluate(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        rows = self.completions(rest["model"])
        for row in rows:
            self.table.append(state.global_step, row)
        shown = [{"step": state.global_step, **row} for row in rows[:SHOWN]]
        self.context.history.say(state.global_step, {"completions": shown} if shown else {})

    def completions(self, model: Any) -> list[dict[str, str]]:
        """Prompts of like length together; one too long for the model loses its beginning. The validation before it
        has left the model in evaluation mode: no dropout, and no gradient checkpointing, which would keep no cache."""
        cap, batch = self.config.validation_max_new_tokens, self.context.runtime.forward_batch
        room = model.config.max_position_embeddings - cap
        prompts = [prompt[-room:] for prompt in self.prompts]
        order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
        found: dict[int, dict[str, str]] = {}
        for first in range(0, len(order), batch):
            places = order[first : first + batch]
            uniform = decoding.uniforms([f"validation/{place}" for place in places], cap, self.config.seed)
            asked = [prompts[place] for place in places]
            with autocast(self.config.precision, model.device):
                drawn = decoding.sample(
                    model, asked, uniform, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id, temperature=1
                )
            for place, prompt, completion in zip(places, self.decode(asked), self.decode(drawn), strict=True):
                found[place] = {"prompt": prompt, "completion": completion}
        return [found[place] for place in range(len(prompts))]

    def decode(self, rows: list[Ids]) -> list[str]:
        texts: list[str] = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return texts

    def export_to(self, folder: Path) -> None:
        """At the end, into the stage's own folder; no file where nothing was asked."""
        if self.prompts:
            shutil.copy(self.table.path, folder / COMPLETIONS)
