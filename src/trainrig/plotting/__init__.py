"""Figures: one style for all of them; rows in, figure out, nothing trained or evaluated here."""
