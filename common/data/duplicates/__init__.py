"""Rows and runs of sentences that come more than once: how they are found over all rows, in bounded memory."""
