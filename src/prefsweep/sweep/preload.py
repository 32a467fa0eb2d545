"""Imported once by the server that every job of a sweep is forked from: a job starts without importing torch again.

Importing touches no device; each job picks its own after the fork.
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
