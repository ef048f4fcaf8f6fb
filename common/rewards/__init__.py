"""Rewards: what an answer is worth, told by a program that checks it or by a reward model.

`common.rewards.verifiers` holds the checks, one function each; `common.rewards.mix` puts several together.
"""
