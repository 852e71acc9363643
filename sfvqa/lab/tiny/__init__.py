"""How the bundled model was made: its synthetic world, its questions, its recipe and its evaluations."""
