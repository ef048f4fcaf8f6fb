"""domain-recipes: take a general language model from a data manifest to a published specialist."""

__version__ = "0.1.0"
