"""The stages, one file each: `run(context: StageContext) -> StageReport`, read top to bottom. See `common.stage`."""
