"""An experiment at work: what it is, how it runs, what it stores, and how it ends."""
