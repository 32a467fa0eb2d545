"""Rollouts: completions of the current policy, and their scores.

A query is a prompt's tokens as the policy reads them; a response is a completion's tokens, up to and with EOS.

Whatever is random about a completion (its tokens, the caps of its query and of its length) is drawn from numbers that
belong to its name, `iteration/row`. So a completion depends neither on the batch nor on the process that draws it,
processes need no seeds of their own, and a resumed run has no generator's state to restore.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import PreTrainedModel

from prefsweep.config.stages import OnPolicyConfig
from prefsweep.models import decoding
from prefsweep.models.codec import TextCodec
from prefsweep.models.loading import autocast
from prefsweep.models.logprobs import CompletionBatch, Ids, completion_batch
from prefsweep.models.scorers import Measures

Score = Callable[[list[str], list[str], list[bool]], Measures]  # prompts, completions, whether each ended


@dataclass(frozen=True)
class Rollouts:
    """N scored completions; every process holds all of them."""

    queries: list[Ids]
    responses: list[Ids]  # up to and with EOS
    prompts: list[str]  # the queries as the scorer read them
    completions: list[str]
    scores: Tensor  # [N] as the scorer gave them
    truncated: Tensor  # [N] whether the scorer had to cut what it read
    ended: Tensor  # [N] whether the response ends, with EOS or at a stop string

    def batch(self, rows: list[int], pad: int) -> CompletionBatch:
        queries, responses = [self.queries[row] for row in rows], [self.responses[row] for row in rows]
        return completion_batch(queries, responses, pad, self.scores.device)

    def tokens(self, rows: Iterable[int]) -> int:
        """Return the number of tokens of queries and responses."""
        return sum(len(self.queries[row]) + len(self.responses[row]) for row in rows)

    @property
    def lengths(self) -> Tensor:
        """[N] the tokens of each response."""
        return torch.tensor([len(response) for response in self.responses], device=self.scores.device)


def room(config: OnPolicyConfig) -> int:
    """Return how many tokens the longest response leaves for its query."""
    return config.max_length - config.response_tokens[1]


def clipped_query(query: Ids, name: str, config: OnPolicyConfig) -> Ids:
    """Return its first few tokens, as many as are drawn from `query_tokens`; where that is unset, its end that fits."""
    if config.query_tokens is not None:
        return query[: Random(f"{config.seed}/query/{name}").randint(*config.query_tokens)]
    return query[-room(config) :]


@dataclass
class Sampler:
    """Draws completions from `policy` as it is at each call, at `temperature` from the whole distribution."""

    config: OnPolicyConfig
    policy: PreTrainedModel
    codec: TextCodec
    score: Score
    accelerator: Any
    batch: int
    # Totals so far, over all processes.
    completions: int = 0
    tokens_read: int = 0  # of queries and responses
    tokens_generated: int = 0  # of responses

    def __call__(self, queries: list[Ids], names: list[str]) -> Rollouts:
        """Complete and score each query with the random numbers of its name; every process returns all of them."""
        # 1. this process's share, queries of like length together
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        share = sorted(range(rank, len(queries), world), key=lambda row: len(queries[row]))
        by_row: dict[int, Ids] = {}
        for first in range(0, len(share), self.batch):
            rows = share[first : first + self.batch]
            drawn = self.draw([queries[row] for row in rows], [names[row] for row in rows])
            by_row |= dict(zip(rows, drawn, strict=True))
        # 2. score it, as text: the scorer may have another tokenizer
        responses = [by_row[row] for row in share]
        shared_queries = [queries[row] for row in share]
        prompts, completions = self.codec.prompts(shared_queries), self.codec.completions(shared_queries, responses)
        ended = [self.codec.has_ended(response) for response in responses]
        measures = self.score(prompts, completions, ended) if share else {"score": []}
        scores, truncated = measures["score"], measures.get("truncated", [0.0] * len(share))
        # 3. every process's, in the order of the rows
        local = list(zip(share, responses, prompts, completions, ended, scores, truncated, strict=True))
        gathered = sorted(gather_object(local) if world > 1 else local, key=lambda item: item[0])
        columns = [list(column) for column in zip(*gathered, strict=True)]
        _, responses, prompts, completions, ended, scores, truncated = columns
        generated = sum(map(len, responses))
        self.completions += len(queries)
        self.tokens_generated += generated
        self.tokens_read += sum(map(len, queries)) + generated
        return Rollouts(
            queries,
            responses,
            prompts,
            completions,
            scores=torch.tensor(scores, dtype=torch.float32, device=self.policy.device),
            truncated=torch.tensor(truncated, dtype=torch.float32, device=self.policy.device),
            ended=torch.tensor(ended, device=self.policy.device),
        )

    def draw(self, queries: list[Ids], names: list[str]) -> list[Ids]:
        """Return responses that stop where they end, or at a length drawn from `response_tokens`."""
        shortest, longest = self.config.response_tokens
        uniform = decoding.uniforms(names, longest, self.config.seed)
        training = self.policy.training
        self.policy.eval()  # gradient checkpointing, which acts in training mode alone, would switch the cache off
        with autocast(self.config.precision, self.policy.device):
            drawn = decoding.sample(
                self.policy, queries, uniform, temperature=self.config.temperature, **self.codec.sampling
            )
        self.policy.train(training)
        if shortest == longest:
            return drawn
        caps = [Random(f"{self.config.seed}/length/{name}").randint(shortest, longest) for name in names]
        return [response[:cap] for response, cap in zip(drawn, caps, strict=True)]
