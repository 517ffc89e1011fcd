"""Training runs: Lightning modules that wire the parts together, optimisers, checkpoints."""
