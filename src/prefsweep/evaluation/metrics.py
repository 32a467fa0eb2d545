"""The text metrics as `evaluate.Metric`s, for `evaluate.combine` and code of one's own. Nothing is fetched.

from prefsweep.evaluation.metrics import Coherence, Ending, Overlap, Variety
Overlap().compute(predictions=answers, references=chosen)
evaluate.combine([Overlap(), Variety(), Ending(eos), Coherence(base)]).compute(
    predictions=answers, references=chosen, prompt_tokens=prompt_ids, completion_tokens=answer_ids
)

Each reads what it needs and leaves the `others`, which `combine` hands to all; a row of `completions.jsonl` has all of it.
"""

from statistics import fmean
from typing import Any

import datasets
import evaluate
from transformers import PreTrainedModel

from prefsweep.evaluation import divergence, overlap, variety

TEXT = datasets.Value("string")
TOKENS = datasets.Sequence(datasets.Value("int64"))


class Ours(evaluate.Metric):
    """In memory: a cache file of ours would be shared by whoever computes at the same time."""

    reads: dict[str, Any]

    def __init__(self, **options: Any):
        super().__init__(keep_in_memory=True, **options)

    def _info(self) -> Any:
        return evaluate.MetricInfo(
            description=str(self.__doc__),
            citation="",
            inputs_description=f"{', '.join(self.reads)}: of each answer",
            features=datasets.Features(self.reads),
        )


class Overlap(Ours):
    """ROUGE-1, -2, -L, -Lsum (F-measures, stemmed) and sacrebleu's BLEU and BLEU-1, with its signature."""

    reads = {"predictions": TEXT, "references": TEXT}

    def _compute(self, predictions: list[str], references: list[str], **others: Any) -> dict[str, Any]:
        rows = overlap.rouge(predictions, references)
        found = {name.removeprefix("text/"): fmean(row[name] for row in rows if row) for name in rows[0]}
        blue = {name.removeprefix("text/"): value for name, value in overlap.bleu(predictions, references).items()}
        return found | blue | {"bleu_signature": overlap.signature()}


class Variety(Ours):
    """Distinct-1 and distinct-2 over all predictions, and the mean repetition of each."""

    reads = {"predictions": TEXT}

    def _compute(self, predictions: list[str], **others: Any) -> dict[str, Any]:
        found = {f"distinct{n}": variety.distinct(predictions, n) for n in (1, 2)}
        return found | {"repetition": fmean(variety.repetition(text) for text in predictions)}


class Ending(Ours):
    """Mean length in tokens, EOS included, and the share of answers that ended with it."""

    reads = {"completion_tokens": TOKENS}

    def __init__(self, eos: int, **options: Any):
        super().__init__(**options)
        self.eos = eos

    def _compute(self, completion_tokens: list[list[int]], **others: Any) -> dict[str, float]:
        ended = [tokens[-1] == self.eos for tokens in completion_tokens]
        return {"length": fmean(map(len, completion_tokens)), "ended": fmean(ended)}


class Coherence(Ours):
    """Mean −log π of an answer's tokens under a model, the frozen base, in nats a token."""

    reads = {"prompt_tokens": TOKENS, "completion_tokens": TOKENS}

    def __init__(self, base: PreTrainedModel, pad: int = 0, batch: int = 32, precision: str = "fp32", **options: Any):
        super().__init__(**options)
        self.base = base.eval()
        self.forward = divergence.Forward(pad, batch, precision)

    def _compute(
        self, prompt_tokens: list[list[int]], completion_tokens: list[list[int]], **others: Any
    ) -> dict[str, float]:
        rows = [
            {"prompt_tokens": prompt, "completion_tokens": completion}
            for prompt, completion in zip(prompt_tokens, completion_tokens, strict=True)
        ]
        found = divergence.values(self.base, self.base, self.base, rows, self.forward, with_kl=False)
        return {"coherence": fmean(said["text/coherence"] for said in found)}
