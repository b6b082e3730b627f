"""Training: from a start and a plan of stages to a network that is stable."""
