"""Overlap of completions with the dataset's chosen ones: ROUGE by rouge_score, BLEU by sacrebleu."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import sacrebleu
from rouge_score import rouge_scorer, tokenize
from rouge_score.tokenizers import DefaultTokenizer

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


def bleu(completions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return corpus BLEU and BLEU-1 [0, 100], one reference a completion."""
    return {f"text/bleu{order or ''}": corpus_bleu(completions, references, order)[0] for order in (None, 1)}


def corpus_bleu(completions: Sequence[str], references: Sequence[str], order: int | None) -> tuple[float, str]:
    """Return the score and sacrebleu's signature, which says how it was computed."""
    metric = sacrebleu.BLEU(max_ngram_order=order or 4, effective_order=False)
    # sacrebleu wants a list of reference streams, each as long as the completions
    return metric.corpus_score(list(completions), [list(references)]).score, str(metric.get_signature())


def signature() -> str:
    return corpus_bleu(["a"], ["a"], None)[1]
