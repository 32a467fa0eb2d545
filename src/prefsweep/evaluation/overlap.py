"""Overlap of completions with the dataset's chosen ones: ROUGE by rouge_score, BLEU by sacrebleu."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import sacrebleu
from rouge_score import rouge_scorer, tokenize
from rouge_score.tokenizers import DefaultTokenizer

from prefsweep.evaluation.by_group import Indices

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def rouge(completions: Sequence[str], references: Sequence[str | None]) -> list[dict[str, float]]:
    """Return the F-measures [0, 1] of each completion, stemmed; an empty dictionary where there is no reference."""
    scorer = rouge_scorer.RougeScorer(KINDS, tokenizer=StemmingTokenizer())
    return [
        {f"text/{kind}": score.fmeasure for kind, score in scorer.score(reference, completion).items()}
        if reference
        else {}
        for completion, reference in zip(completions, references, strict=True)
    ]


class StemmingTokenizer(DefaultTokenizer):
    """rouge_score's tokenizer, which stems each word once: stemming takes nearly all of the time."""

    def __init__(self) -> None:
        super().__init__(use_stemmer=True)
        self.stem = lru_cache(maxsize=1 << 16)(self._stemmer.stem)

    def tokenize(self, text: str) -> Any:
        return tokenize.tokenize(text, self)


class Bleu:
    """Corpus BLEU and BLEU-1 [0, 100] of some of the completions, with one reference each."""

    def __init__(self, completions: Sequence[str], references: Sequence[str]) -> None:
        metric = sacrebleu.BLEU()
        scores = [metric.corpus_score([row[0]], [[row[1]]]) for row in zip(completions, references, strict=True)]
        self.lengths = np.array([(score.sys_len, score.ref_len) for score in scores])
        self.correct = np.array([score.counts for score in scores])  # [rows, orders]
        self.total = np.array([score.totals for score in scores])

    def __call__(self, indices: Indices) -> dict[str, float]:
        correct, total = (counts[indices].sum(0).tolist() for counts in (self.correct, self.total))
        completion, reference = self.lengths[indices].sum(0).tolist()
        return {
            name: sacrebleu.BLEU.compute_bleu(
                correct[:order], total[:order], completion, reference, smooth_method="exp", max_ngram_order=order
            ).score
            for name, order in (("text/bleu", len(correct)), ("text/bleu1", 1))
        }


def signature() -> str:
    """Return how BLEU was computed, in sacrebleu's words."""
    metric = sacrebleu.BLEU()
    metric.corpus_score(["a"], [["a"]])
    return str(metric.get_signature())
