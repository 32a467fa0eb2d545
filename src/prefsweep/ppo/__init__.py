"""Proximal policy optimisation of language models. Read in this order: tensors, loss, policy, rollout, trainer."""
