"""`sfvqa chat`: questions about one video, each in the light of those before it."""
