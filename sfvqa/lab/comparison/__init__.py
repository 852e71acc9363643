"""The paper's comparison in small: models that differ in one thing, trained on the same videos at equal budget."""
