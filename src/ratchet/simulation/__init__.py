"""Worlds with known truth, and real rows replayed."""
