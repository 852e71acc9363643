"""What things cost, measured. Each module is a command of its own."""
