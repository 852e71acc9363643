"""Many videos: items and where they come from, the run, and the file that keeps the records. Prints nothing."""
