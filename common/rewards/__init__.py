"""Rewards: what an answer is worth, told by a program that checks it.

`common.rewards.verifiers` holds the checks, one function each; `common.rewards.mix` puts several together.
"""
