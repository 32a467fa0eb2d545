"""On-policy optimisation of language models. Read in this order: tensors, loss, policy, rollout, update, trainer."""
