"""Running a sweep: launchers, worker processes, successive halving and refinement.

The folder is not called ``run``, because `paramz.sweeps.run` is a public function.
"""
