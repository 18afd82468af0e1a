"""A task on its ranks: who holds what of it."""
