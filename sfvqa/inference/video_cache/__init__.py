"""Videos that were seen, kept on disk between runs: what they are found by, their files, and the store of these."""
