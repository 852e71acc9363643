"""For users: convert a plain decoder into a slow-fast model, and fine-tune one on videos of their own."""
