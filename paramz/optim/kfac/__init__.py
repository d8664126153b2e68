"""K-FAC and FOOF."""
