"""What a stage will need: memory by phase, time, disk and price, reckoned before anything is spent.

Usage: `estimate = estimate_of(resolved)`; `estimate.stages["cpt"].phases["train"]` (`common.cost.stages`).

Plain Python over the shapes of a model: nothing here imports torch, so `plan` stays instant. Formulas and what they
leave out stand where they are used; `just bench cost` compares them with what is measured.
"""
