"""`sfvqa serve`: a warm model that other programs ask over HTTP."""
