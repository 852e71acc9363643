"""The laboratory: how tiny was made, the paper in small, our measurements. Not in the wheel."""
