"""Batches of rows of similar length, so that little of a batch is padding."""

from collections.abc import Iterator, Sequence


def batches_by_length(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Yield the indices of all rows in batches of at most `batch_size`, from the shortest rows to the longest.

    Rows of equal length keep their order, so the batches depend on the lengths alone and a resumed stage repeats them.
    """
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    for first in range(0, len(order), batch_size):
        yield order[first : first + batch_size]
