"""What the training stages share: tokenised rows, packing, the trainer, resuming."""
