"""Worchflow: durable workflows in which every step is saved and every layer is a plugin."""
