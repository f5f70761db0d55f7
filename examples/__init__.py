"""Runnable examples; nothing in the service imports them."""
