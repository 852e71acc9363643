"""Judge answers against known ones, with confidence intervals and tests of two runs. Arithmetic only."""
