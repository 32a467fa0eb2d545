"""Importing an object by its dotted path, as a config's `_target_` gives it."""

from importlib import import_module
from typing import Any

from prefsweep.errors import UserError, nearest


def import_object(path: str) -> Any:
    """Return the object that a dotted path names; raise a one-line UserError if the module or attribute is missing."""
    module_name, _, name = path.rpartition(".")
    if not module_name or path.startswith("."):
        raise UserError(f"_target_={path}: not a dotted path; set package.module.name")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise  # this module exists, but one that it imports does not: a broken installation, not a wrong path
        raise UserError(f"_target_={path}: no module {error.name}; set package.module.name") from error
    if not hasattr(module, name):
        raise UserError(f"_target_={path}: module {module_name} has no {name}{nearest(name, vars(module))}")
    return getattr(module, name)
