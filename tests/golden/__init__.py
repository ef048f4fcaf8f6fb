"""What must not change unasked: fingerprints of every shipped recipe, and the losses and weights of short runs."""
