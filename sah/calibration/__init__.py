"""Fitting methods to a model: channel rankings, hash networks and the gates of heads."""
