"""Models on a Hugging Face hub → its cache on this machine: planned, pulled, verified, removed. Imports no torch."""
