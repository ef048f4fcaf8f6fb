"""Personal data in text: where it stands, and what may stand there instead. Which kinds are masked says the block."""
