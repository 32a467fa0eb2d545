"""What can be counted on the answers alone."""

from statistics import fmean
from typing import Any


def metrics(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {
        "text/length": fmean(len(row["answer_tokens"]) for row in rows),
        "text/ended": fmean(float(row["ended"]) for row in rows),
    }
