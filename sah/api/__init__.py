"""The Python interface: what `sah.run`, `sah.results` and their siblings do."""
