"""Slurm through submitit: profiles, submission, status. Imports no torch."""
