"""Models, tokenizers and devices: load, save, check, and place them."""
