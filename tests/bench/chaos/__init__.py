"""`just bench chaos`: a chain of seconds under faults must end with what an undisturbed one makes."""
