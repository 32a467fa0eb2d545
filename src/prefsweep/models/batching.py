"""Batches of rows of similar length, so that little of a batch is padding."""

from collections.abc import Iterator, Sequence


def batches_by_length(
    lengths: Sequence[int], batch_size: int | None = None, *, batch_tokens: int | None = None, equal_only: bool = False
) -> Iterator[list[int]]:
    """Yield the indices of all rows in batches, from the shortest rows to the longest.

    A batch has at most `batch_size` rows and, padding included, `batch_tokens` tokens (but at least one row); with
    `equal_only` its rows are of equal length. Rows of equal length keep their order, so the batches depend on the
    lengths alone and a resumed stage repeats them.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        is_full = batch_size is not None and len(batch) == batch_size
        is_full |= batch_tokens is not None and (len(batch) + 1) * lengths[index] > batch_tokens
        if batch and (is_full or (equal_only and lengths[index] != lengths[batch[0]])):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
