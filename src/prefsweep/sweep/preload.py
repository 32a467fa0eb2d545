"""Imported once by the server from which every job of a sweep is forked, so that no job has to import torch again.

These imports initialise no device; each job chooses its own after the fork.
"""

import pkgutil
from importlib import import_module

import datasets  # noqa: F401
import torch  # noqa: F401
import transformers  # noqa: F401
import trl  # noqa: F401
import wandb  # noqa: F401

from prefsweep import stages

for module in pkgutil.iter_modules(stages.__path__, f"{stages.__name__}."):
    import_module(module.name)
