"""The directory of a sweep: results, attempts, and how far the sweep has come."""
