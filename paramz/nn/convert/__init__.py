"""From a plain model to a unit-scaled one: record a forward pass, find factors, replace layers."""
