"""How a row that is too long is cut, and the counts of what was cut from a whole dataset."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Ids = list[int]
MOSTLY = 0.75  # a prompt that lost more than this share of its tokens is hardly the prompt any more


# The counts in a stage's metrics: prompts that lost their beginning, most of it, and completions that lost their end.
COUNTED = ("prompts_truncated", "prompts_mostly_truncated", "completions_truncated")


@dataclass
class Truncation:
    """Counts of what did not fit, so that nothing is cut in silence."""

    rows: int = 0
    prompts: int = 0  # that lost their beginning
    prompts_mostly: int = 0  # of these, the ones that lost more than three quarters
    completions: int = 0  # that lost their end
    merged: int = 0  # prompts whose last tokens merge with a completion's first ones: see views.encode

    def fit(
        self,
        prompt: Ids,
        completions: Sequence[Ids],
        max_length: int,
        prompt_tokens: int | None = None,
        is_fixed: bool = False,
    ) -> tuple[Ids, list[Ids]]:
        """Return a prompt and its completions cut so that prompt and completion are at most `max_length` tokens.

        The prompt loses its beginning, but its last `prompt_tokens` (None: half of `max_length`) stay; then completions
        lose their end, and with it EOS: a model must not learn to stop where a text was cut. All completions share one
        prompt, cut for the longest. With `is_fixed` the prompt is never longer than `prompt_tokens`, so that it is the
        same beside every completion that there may be.
        """
        budget = min(prompt_tokens or max_length // 2, max_length - 1)
        longest = max(map(len, completions))
        short = prompt[-(budget if is_fixed else max(budget, max_length - longest)) :]
        room = max_length - len(short)
        self.rows += 1
        self.prompts += len(short) < len(prompt)
        self.prompts_mostly += is_mostly_lost(prompt, short)
        self.completions += sum(len(completion) > room for completion in completions)
        return short, [completion[:room] for completion in completions]

    def add(self, other: "Truncation") -> None:
        for name, count in other.counts().items():
            setattr(self, name, getattr(self, name) + count)

    def counts(self) -> dict[str, int]:
        return asdict(self)

    def metrics(self) -> dict[str, int]:
        counts = dict(zip(COUNTED, (self.prompts, self.prompts_mostly, self.completions), strict=True))
        return {"rows": self.rows, **counts} | ({"boundaries_merged": self.merged} if self.merged else {})


def is_mostly_lost(prompt: Ids, short: Ids) -> bool:
    return len(short) < (1 - MOSTLY) * len(prompt)


def sentence(metrics: Mapping[str, Any]) -> str:
    """Return what a stage's metrics count: `of 200 rows 81 lost some of their prompt (12 most of it), 7 their end`."""
    prompts, mostly, ends = (metrics.get(name, 0) for name in COUNTED)
    if not prompts and not ends:
        return ""
    if "rows" not in metrics:  # a stage that learns from prompts alone
        return f"{prompts:,} prompts lost their beginning"
    cut = f"{prompts:,} lost some of their prompt ({mostly:,} most of it), {ends:,} their end"
    return f"of {metrics['rows']:,} rows {cut}"
