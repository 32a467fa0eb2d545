"""Parse overrides (`key=value`, `group=choice`, `+key=value`, `~key`) by Hydra's grammar, each once."""

import itertools

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType

from prefsweep.config.hydra_errors import one_line_errors
from prefsweep.errors import UserError

# The overrides parsed so far: the jobs of a grid share most of theirs. Emptied by `compose.composing`.
PARSED: dict[str, Override] = {}


def loader() -> ConfigLoaderImpl:
    """Return the config loader that Hydra was set up with."""
    current = GlobalHydra.instance().config_loader()
    assert isinstance(current, ConfigLoaderImpl)
    return current


def parse(words: list[str]) -> list[Override]:
    """Return the parsed form of each override, in order."""
    new = [word for word in dict.fromkeys(words) if word not in PARSED]
    if new:
        with one_line_errors():
            PARSED.update(zip(new, OverridesParser.create(loader()).parse_overrides(new), strict=True))
    return [PARSED[word] for word in words]


def key_of(word: str) -> str:
    """Return the dotted key of `key=value`, `+key=value` and `~key`; of a group with its package, `scorer@judge`."""
    return word.lstrip("+~").partition("=")[0]


def chooses_file(override: Override) -> bool:
    """Whether an override chooses a file of a config group, as Hydra decides it."""
    return loader().repository.group_exists(override.key_or_group) and not isinstance(override.value(), dict)


def check_choice(override: Override) -> None:
    """Refuse what Hydra would ignore, or would complain of without naming the override."""
    line = override.input_line
    if override.is_sweep_override():
        raise UserError(f"{line}: several values make a sweep; add -m")
    if override.key_or_group.split(".")[0].split("/")[0] == "hydra":
        raise UserError(f"{line}: settings of Hydra itself have no effect here")
    if chooses_file(override) and not (override.is_delete() or isinstance(override.value(), str | list)):
        raise UserError(f"{line}: a group takes the name of one of its choices; `prefsweep --help` lists them")


def products(words: list[str], multirun: bool) -> list[list[str]]:
    """Return the Cartesian product of all values: one list of single-valued overrides for each combination.

    Hydra's syntax for several values is `a=1,2`, `a=range(3)`, `a=choice(x,y)`, `a=glob(*)` for the files of a group.
    """
    if not multirun:
        return [words]
    return [list(line) for line in itertools.product(*(single_values(override) for override in parse(words)))]


def single_values(override: Override) -> list[str]:
    """Return one override for each value: `a=1` and `a=2` for `a=1,2`."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    if not override.is_discrete_sweep():
        raise UserError(f"{override.input_line}: an interval has no finite grid; list its values")
    values = list(override.sweep_string_iterator())
    if override.value_type == ValueType.GLOB_CHOICE_SWEEP:  # `glob(*)` means the choices, not what they include
        values = [value for value in values if not value.startswith("_")]
    if not values:
        raise UserError(f"{override.input_line}: has no values")
    return [f"{override.get_key_element()}={value}" for value in values]
