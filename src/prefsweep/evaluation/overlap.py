"""What an answer shares with the dataset's own: ROUGE by rouge_score, BLEU by sacrebleu."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import sacrebleu
from rouge_score import rouge_scorer, tokenize
from rouge_score.tokenizers import DefaultTokenizer

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def rouge(completions: Sequence[str], references: Sequence[str | None]) -> list[dict[str, float]]:
    """F-measures in [0, 1] of each answer, stemmed; nothing where there is no reference."""
    scorer = rouge_scorer.RougeScorer(KINDS, tokenizer=TextCodec())
    return [
        {f"text/{kind}": score.fmeasure for kind, score in scorer.score(reference, completion).items()}
        if reference
        else {}
        for completion, reference in zip(completions, references, strict=True)
    ]


class TextCodec(DefaultTokenizer):
    """rouge_score's own words, each stemmed once: stemming is nearly all of its time, and texts repeat their words."""

    def __init__(self) -> None:
        super().__init__(use_stemmer=True)
        self.stem = lru_cache(maxsize=1 << 16)(self._stemmer.stem)

    def tokenize(self, text: str) -> Any:
        return tokenize.tokenize(text, self)


def bleu(completions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Corpus BLEU and BLEU-1 in [0, 100], one reference an answer."""
    return {f"text/bleu{order or ''}": scored(completions, references, order)[0] for order in (None, 1)}


def scored(completions: Sequence[str], references: Sequence[str], order: int | None) -> tuple[float, str]:
    """The score and sacrebleu's signature, which says how it was computed."""
    metric = sacrebleu.BLEU(max_ngram_order=order or 4, effective_order=False)
    # a list of streams, each as long as the answers: given flat, a perfect match would score 0
    return metric.corpus_score(list(completions), [list(references)]).score, str(metric.get_signature())


def signature() -> str:
    return scored(["a"], ["a"], None)[1]
