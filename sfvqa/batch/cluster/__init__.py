"""A batch on a Ray cluster: Ray places workers, sees that they end and ships what they yield; here is who has which video."""
