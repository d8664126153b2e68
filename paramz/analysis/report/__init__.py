"""``paramz report``: what a sweep and its coordinate checks say, on one page.

A folder is a run (it holds ``results/`` or ``coord/``) or a folder of runs, which share a page.
Each part of the page is made from what there is: transfer where a hyperparameter was swept over two
or more scales, the coordinate check where one was written.
"""

from __future__ import annotations

from paramz.analysis.report.write import Report, find_runs, write_report, write_table_report

__all__ = ["Report", "find_runs", "write_report", "write_table_report"]
