"""The text metrics as `evaluate.Metric`s, for `evaluate.combine` and code of one's own. Nothing is fetched.

from prefsweep.evaluation.metrics import Overlap, Variety
Overlap().compute(predictions=answers, references=chosen)
"""

from statistics import fmean
from typing import Any

import datasets
import evaluate

from prefsweep.evaluation import overlap, variety


class Ours(evaluate.Metric):
    """In memory: a cache file of ours would be shared by whoever computes at the same time."""

    def __init__(self, **options: Any):
        super().__init__(keep_in_memory=True, **options)

    def _info(self) -> Any:
        texts = {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
        return evaluate.MetricInfo(
            description=str(self.__doc__),
            citation="",
            inputs_description="predictions: answers; references: an answer of the dataset each",
            features=datasets.Features(texts),
        )


class Overlap(Ours):
    """ROUGE-1, -2, -L, -Lsum (F-measures, stemmed) and sacrebleu's BLEU and BLEU-1, with its signature."""

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        rows = overlap.rouge(predictions, references)
        found = {name.removeprefix("text/"): fmean(row[name] for row in rows if row) for name in rows[0]}
        blue = {name.removeprefix("text/"): value for name, value in overlap.bleu(predictions, references).items()}
        return found | blue | {"bleu_signature": overlap.signature()}


class Variety(Ours):
    """Distinct-1 and distinct-2 over all predictions, and the mean repetition of each; references are not read."""

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        found = {f"distinct{n}": variety.distinct(predictions, n) for n in (1, 2)}
        return found | {"repetition": fmean(variety.repetition(text) for text in predictions)}
