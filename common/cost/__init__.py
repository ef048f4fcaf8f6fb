"""What a stage will need: memory by phase, time, disk and price, estimated before anything is spent.

Usage: `outlook = Outlook.of(resolved)`; `outlook.phases("cpt")["train"].device_total` (`common.cost.outlook`).

Plain Python over the shapes of a model: nothing here imports torch, so `plan` stays instant. Formulas and what they
leave out stand where they are used; `just bench cost` compares them with what is measured.
"""
