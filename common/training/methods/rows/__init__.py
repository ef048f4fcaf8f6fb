"""Which packed rows are read, and in which order."""
