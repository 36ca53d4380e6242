"""Calls that configure a model: given to its every worker, kept for those that start later."""
