"""A batch on a Ray cluster: Ray places and watches workers and ships what they yield; we give out the videos."""
