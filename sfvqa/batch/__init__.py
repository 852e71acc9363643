"""Many videos: items and where they come from, records and the file that keeps them, the run. Prints nothing."""
