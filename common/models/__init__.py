"""Checkpoints, tokenizers and devices: what every stage needs to know of a model and of the machine it runs on."""
