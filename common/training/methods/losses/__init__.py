"""Losses beside that of the next token: each a function of the logits of a micro batch."""
