"""Which rows are worked on together, and by which process. The same rows whatever the number of processes."""

from dataclasses import dataclass
from functools import lru_cache
from random import Random

from prefsweep.config.stages import PPOConfig


@dataclass(frozen=True)
class Minibatch:
    """The rows of one optimiser step over all processes, and this process's share of them in micro-batches."""

    rows: tuple[int, ...]
    parts: list[list[int]]


@dataclass(frozen=True)
class Split:
    rank: int
    world: int
    micro_batch: int

    def minibatches(self, config: PPOConfig, iteration: int, epoch: int) -> list[Minibatch]:
        """All rows of an iteration in an order that belongs to the epoch."""
        order = shuffled(f"{config.seed}/epoch/{iteration}/{epoch}", config.batch_size)
        size = config.minibatch_size
        return [self.minibatch(order[first : first + size]) for first in range(0, len(order), size)]

    def minibatch(self, rows: tuple[int, ...]) -> Minibatch:
        mine = list(rows[self.rank :: self.world])
        return Minibatch(
            rows, [mine[first : first + self.micro_batch] for first in range(0, len(mine), self.micro_batch)]
        )


@lru_cache(maxsize=64)
def shuffled(name: str, count: int) -> tuple[int, ...]:
    """0 … count − 1 in an order that `name` decides."""
    order = list(range(count))
    Random(name).shuffle(order)
    return tuple(order)
