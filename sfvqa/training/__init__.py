"""How the bundled checkpoint is made: synthetic videos, questions about them, the recipe and its evaluation."""
