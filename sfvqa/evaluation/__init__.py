"""Answers whose true ones are known: are they right, how sure is the share, and do two runs differ. Arithmetic only."""
