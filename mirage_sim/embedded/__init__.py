"""The embedded world model: weights, configuration and model card as package data."""
