"""Learning-rate schedules: each a function from a step to a share of the peak."""
