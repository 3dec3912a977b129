"""Backup policies: what runs every night, and what is known of it in the morning."""
