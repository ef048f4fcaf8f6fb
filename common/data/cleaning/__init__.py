"""Clean the rows of one role by a list of blocks, in tasks that any number of processes may share."""
