"""Numbers and settings as text."""

import math
import re
from collections.abc import Iterable
from typing import Any

NOTHING = "–"


def value_text(value: Any) -> str:
    """Return a setting as a table shows it: `0.1`, `true`, `c_attn, c_proj`, and a dash for none."""
    if value is None:
        return NOTHING
    if isinstance(value, list | tuple):
        return ", ".join(map(value_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def key_heading(key: str) -> str:
    """Return `dpo.beta` for `stages.dpo.beta`; every other key as it is typed."""
    return key.removeprefix("stages.")


def setting_text(key: str, value: Any) -> str:
    return f"{key_heading(key)} {value_text(value)}"


def decimals_for(means: Iterable[float | None]) -> int:
    """Return how many decimals show three digits of the column's largest value; below 0 from a million on."""
    largest = max((abs(value) for value in means if value is not None), default=0.0)
    if largest == 0:
        return 3
    decimals = 2 - math.floor(math.log10(largest))
    return decimals if largest >= 1e6 else min(max(decimals, 0), 4)


def number(value: float, decimals: int) -> str:
    """Return `0.573`, or `3.60e16` where decimals are below 0: a column has one exponent."""
    if decimals < 0:
        return f"{number(value / 10 ** (2 - decimals), 2)}e{2 - decimals}"
    text = f"{value:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def sort_key(value: Any) -> tuple[int, float, str]:
    """Order settings of any kind: none first, then numbers by size, then words, 2 before 10."""
    if isinstance(value, int | float):
        return 1, float(value), ""
    return (0, 0.0, "") if value is None else (2, 0.0, natural(value_text(value)))


def natural(name: str) -> str:
    """Order names with numbers by size, part by part, so that sft comes before sft+dpo, and 2 before 10."""
    return re.sub(r"\d+(?:\.\d+)?", lambda digits: f"{float(digits[0]):030.9f}", name).replace("_", "\0")
