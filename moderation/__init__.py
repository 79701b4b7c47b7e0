"""Moderation reads committed entries and acts by entries of its own; it never delays a message."""
