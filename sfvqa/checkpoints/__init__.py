"""Which model, is it here, does it fit, load it."""
