"""Scores: what a model is worth, and how sure of it we are."""
