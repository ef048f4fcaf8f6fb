"""Rewards: how much an answer is worth, as a number from a program or a reward model.

`common.rewards.verifiers` holds the checks by program, one function each. `common.rewards.reward_model` loads reward
models. `common.rewards.mix` combines several rewards into one.
"""
