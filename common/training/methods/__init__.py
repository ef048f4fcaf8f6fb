"""Methods of the papers: a folder for each place that a method plugs into, and what a trainer does with them."""
