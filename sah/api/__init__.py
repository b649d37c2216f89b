"""The Python interface: `sah.run`, `results`, `examples`, `compose` and `attach`."""
