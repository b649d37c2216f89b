"""Groups of contexts: what is prefilled and decoded together, and what arms share of it."""
