"""Weights that are half zeros in a fixed pattern: 2 of each 4 along the input of a matrix."""
