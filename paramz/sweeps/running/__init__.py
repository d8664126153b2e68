"""How a sweep is run here: trials, worker processes, halving, refinement."""
