"""What the judge says: means of its measures, and how often the result's answer beats the base's."""

from statistics import fmean, median, pstdev
from typing import Any

Row = dict[str, Any]


def metrics(result: list[Row], start: list[Row], base: list[Row]) -> dict[str, float]:
    scores = column(result, "score")
    others = [name for name in result[0]["scores"] if name != "score"]
    return {
        "judge/mean": fmean(scores),
        "judge/median": median(scores),
        "judge/std": pstdev(scores),
        "judge/start_mean": fmean(column(start, "score")),
        "judge/base_mean": fmean(column(base, "score")),
        **win_rate(result, base),
        **{f"judge/{name}": fmean(column(result, name)) for name in others},
    }


def column(rows: list[Row], name: str) -> list[float]:
    return [row["scores"][name] for row in rows]


def win_rate(rows: list[Row], against: list[Row]) -> dict[str, float]:
    """Paired by prompt and sample number. A tie is half a win, and the share of ties is told."""
    theirs = {(row["id"], row["sample"]): row["scores"]["score"] for row in against}
    differences = [row["scores"]["score"] - theirs[row["id"], row["sample"]] for row in rows]
    wins = sum(difference > 0 for difference in differences)
    ties = sum(difference == 0 for difference in differences)
    return {"judge/win_rate": (wins + ties / 2) / len(rows), "judge/ties": ties / len(rows)}
