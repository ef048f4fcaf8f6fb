"""Tests of the blocks that clean rows."""
