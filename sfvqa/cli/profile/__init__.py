"""`sfvqa profile`: its options, what is planned before it runs, and how what was measured is shown."""
