"""Configs for `accelerate launch`, one an engine."""
