"""Models made larger: what a method makes of a config.json and of the weights, and what is known of it afterwards.

Usage: `grown = grow(model, settings, stage)` (`common.models.growth.growing`); `grown_config(settings, config, stage)`.

All functions here are arithmetic on weights and settings; the stage is `common.stages.expand`.
"""
