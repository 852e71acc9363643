"""Our own measurements, each a command: readers, batches, workers, what more frames cost."""
