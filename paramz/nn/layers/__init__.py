"""Unit-scaled modules, with the names and arguments of torch's."""
