"""Which rows share a minibatch and a micro-batch, and which process works on them.

The rows of a minibatch are the same whatever the number of processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from prefsweep.config.stages import OnPolicyConfig
from prefsweep.models.batching import batches_by_length


@dataclass(frozen=True)
class Minibatch:
    """The rows of one optimiser step over all processes, and this process's share of them in micro-batches."""

    rows: tuple[int, ...]
    micro_batches: list[list[int]]


@dataclass(frozen=True)
class MicroBatch:
    """The size of one forward and backward pass: so many rows, or so many tokens with their padding."""

    rows: int | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class Split:
    """Divide the rows of an iteration into minibatches, and each minibatch among `world` processes."""

    rank: int
    world: int
    micro_batch: MicroBatch

    def minibatches(
        self, config: OnPolicyConfig, iteration: int, epoch: int, lengths: Sequence[int]
    ) -> list[Minibatch]:
        """Return all rows of an iteration, in an order that depends on the iteration and the epoch alone."""
        order = shuffled(f"{config.seed}/epoch/{iteration}/{epoch}", config.batch_size)
        size = config.minibatch_size
        return [self.minibatch(order[first : first + size], lengths) for first in range(0, len(order), size)]

    def minibatch(self, rows: tuple[int, ...], lengths: Sequence[int]) -> Minibatch:
        """Return these rows, this process's share of them in micro-batches of like lengths."""
        share = rows[self.rank :: self.world]
        size = self.micro_batch
        batches = batches_by_length([lengths[row] for row in share], size.rows, batch_tokens=size.tokens)
        return Minibatch(rows, [[share[index] for index in batch] for batch in batches])


@lru_cache(maxsize=64)
def shuffled(name: str, count: int) -> tuple[int, ...]:
    """Return 0 … count − 1 in an order that `name` decides."""
    order = list(range(count))
    Random(name).shuffle(order)
    return tuple(order)
