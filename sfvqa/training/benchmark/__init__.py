"""The synthetic benchmark: videos in continuous time, questions that need time, detail, both, or an overview."""
