"""The stages: one function each, `run(config, *, <sections and inputs by name>, folder, context) → metrics`."""
