"""A sample package of workflow functions and hooks for Worchflow."""
