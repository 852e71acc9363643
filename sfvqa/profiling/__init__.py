"""`sfvqa profile`: measure what questions cost, compare and draw it."""
