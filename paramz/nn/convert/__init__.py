"""From a plain model to a unit-scaled one: watch a forward pass, find the factors, swap layers."""
