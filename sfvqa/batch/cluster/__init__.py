"""A batch on a Ray cluster: Ray places workers, watches them and ships what they yield; here is who has which video."""
