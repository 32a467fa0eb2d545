"""`--cfg job`: the config of one job as compact YAML."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from prefsweep.config.compose import compose, compose_raw, composing

OPENED = {"stages", "method", "method.pipeline"}  # sections with a line for each entry


def config_text(words: list[str], config_dir: Path | None, resolve: bool) -> str:
    """Return the checked config of one job as compact YAML, as `--cfg job` prints it: a stage in a few lines."""
    with composing(config_dir):
        composed = compose_raw(words, config_dir)
        used = compose(words, config_dir).stages
    container = OmegaConf.to_container(composed, resolve=resolve)
    assert isinstance(container, dict)
    container["stages"] = {name: values for name, values in container["stages"].items() if name in used}
    return "".join(sections(container, ""))


def sections(values: dict[Any, Any], path: str) -> Iterator[str]:
    """Yield the YAML of each value on a line of its own; of a section in `OPENED`, that of each value in it."""
    indent = "  " * path.count(".")
    for key, value in values.items():
        if f"{path}{key}" in OPENED:
            yield f"{indent}{key}:\n"
            yield from sections(value, f"{path}{key}.")
        else:
            yield f"{indent}{key}: {flow(value, indent)}\n"


def flow(value: Any, indent: str) -> str:
    """Return a value as YAML in flow style, wrapped."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=110, allow_unicode=True)
    return str(text).removesuffix("\n").removesuffix("\n...").replace("\n", f"\n{indent}    ")
