"""Training: the module, its optimizers and schedules, checkpoints, and what a person sees of it."""
