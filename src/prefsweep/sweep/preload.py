"""Imported once by the server that every job of a sweep is forked from: a job starts without importing torch again.

Importing touches no device; each job picks its own after the fork.
"""

import datasets  # noqa: F401
import torch  # noqa: F401
import transformers  # noqa: F401
import trl  # noqa: F401
import wandb  # noqa: F401
