"""Blocks that clean rows: one module for each, found by its name. What they share is `common.config.blocks`."""
