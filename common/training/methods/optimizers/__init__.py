"""What an optimizer does beyond its own rule: rates of groups of weights, and rules around its steps."""
