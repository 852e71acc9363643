"""Choose a model, find it, check that it fits in memory, and load it."""
