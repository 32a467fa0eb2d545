"""Answers to queries, and their scores.

Whatever is random about an answer (its tokens, the caps of its query and its length) is drawn from numbers that belong
to its name, `iteration/row`. So an answer depends neither on the batch nor on the process that draws it, processes
need no seeds of their own, and a resumed run needs no generator's state.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import PreTrainedModel

from prefsweep.config.stages import PPOConfig
from prefsweep.models import decoding
from prefsweep.models.loading import autocast
from prefsweep.models.logprobs import CompletionBatch, Ids, completion_batch
from prefsweep.models.scorers import Measures

Score = Callable[[list[str], list[str]], Measures]
Decode = Callable[[list[Ids]], list[str]]


@dataclass(frozen=True)
class Rollouts:
    """N answered queries; every process holds all of them."""

    queries: list[Ids]
    responses: list[Ids]  # up to and with EOS
    prompts: list[str]  # the queries as the scorer read them
    completions: list[str]
    scores: Tensor  # [N] as the scorer gave them
    truncated: Tensor  # [N] whether the scorer had to cut what it read
    ended: Tensor  # [N] whether the response closes with EOS

    def batch(self, rows: list[int], pad: int) -> CompletionBatch:
        queries, responses = [self.queries[row] for row in rows], [self.responses[row] for row in rows]
        return completion_batch(queries, responses, pad, self.scores.device)

    def tokens(self, rows: Iterable[int]) -> int:
        """Of queries and responses."""
        return sum(len(self.queries[row]) + len(self.responses[row]) for row in rows)

    @property
    def lengths(self) -> Tensor:
        return torch.tensor([len(response) for response in self.responses], device=self.scores.device)


@dataclass(frozen=True)
class TextCodec:
    """What stands between token ids and texts: a tokenizer's, or a toy's."""

    eos: int
    pad: int
    decode: Decode


def room(config: PPOConfig) -> int:
    """Tokens that the longest response leaves for its query."""
    return config.max_length - config.response_tokens[1]


def clipped_query(query: Ids, name: str, config: PPOConfig) -> Ids:
    """Its first few tokens, their number drawn from `query_tokens`; else the whole, or as much of its end as fits."""
    if config.query_tokens is not None:
        return query[: Random(f"{config.seed}/query/{name}").randint(*config.query_tokens)]
    return query[-room(config) :]


@dataclass
class Sampler:
    """Draws answers from `policy` as it is at each call, at `temperature` from the whole distribution."""

    config: PPOConfig
    policy: PreTrainedModel
    words: TextCodec
    score: Score
    accelerator: Any
    batch: int
    generate_completions: int = 0  # queries so far, by all processes
    read: int = 0  # tokens of queries and responses
    generated: int = 0  # of responses

    def __call__(self, queries: list[Ids], names: list[str]) -> Rollouts:
        # 1. this process's share, queries of like length together
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        queries = [clipped_query(query, name, self.config) for query, name in zip(queries, names, strict=True)]
        mine = sorted(range(rank, len(queries), world), key=lambda row: len(queries[row]))
        responses: dict[int, Ids] = {}
        for first in range(0, len(mine), self.batch):
            rows = mine[first : first + self.batch]
            drawn = self.draw([queries[row] for row in rows], [names[row] for row in rows])
            responses |= dict(zip(rows, drawn, strict=True))
        # 2. score it, as text: the scorer may have another tokenizer
        prompts = self.words.decode([queries[row] for row in mine])
        completions = self.words.decode([responses[row] for row in mine])
        measured = self.score(prompts, completions) if mine else {"score": []}
        scores, cut = measured["score"], measured.get("truncated", [0.0] * len(mine))
        # 3. everybody's, in the order of the rows
        done = list(zip(mine, [responses[row] for row in mine], prompts, completions, scores, cut, strict=True))
        whole = sorted(gather_object(done) if world > 1 else done, key=lambda item: item[0])
        _, kept, all_prompts, all_completions, all_scores, all_cut = (
            list(column) for column in zip(*whole, strict=True)
        )
        self.generate_completions += len(queries)
        self.generated += sum(map(len, kept))
        self.read += sum(map(len, queries)) + sum(map(len, kept))
        where = self.policy.device
        ended = torch.tensor([response[-1] == self.words.eos for response in kept], device=where)
        found, truncated = (torch.tensor(each, device=where, dtype=torch.float32) for each in (all_scores, all_cut))
        return Rollouts(queries, kept, all_prompts, all_completions, found, truncated, ended)

    def draw(self, queries: list[Ids], names: list[str]) -> list[Ids]:
        """Responses cut at their first EOS, or at a length drawn from `response_tokens`."""
        shortest, longest = self.config.response_tokens
        uniform = decoding.uniforms(names, longest, self.config.seed)
        training = self.policy.training
        self.policy.eval()  # gradient checkpointing, which acts in training mode alone, would switch the cache off
        with autocast(self.config.precision, self.policy.device):
            drawn = decoding.sample(
                self.policy, queries, uniform, self.words.eos, self.words.pad, self.config.temperature
            )
        self.policy.train(training)
        if shortest == longest:
            return drawn
        caps = [Random(f"{self.config.seed}/length/{name}").randint(shortest, longest) for name in names]
        return [response[:cap] for response, cap in zip(drawn, caps, strict=True)]
