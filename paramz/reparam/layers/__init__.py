"""Layers that are made of computed weights."""
