"""Transfer metrics, scaling laws, plots and the report. Imports no torch."""
