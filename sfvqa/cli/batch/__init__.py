"""`sfvqa batch`: its options, what is planned before it runs, and what is shown while it does."""
