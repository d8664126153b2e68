"""From a task and a target to a decision, in steps that are ordinary sweeps and checks.

Start with `paramz.tune`, or ``paramz tune``.
"""
