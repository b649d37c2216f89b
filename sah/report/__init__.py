"""Tables, comparisons, figures and an HTML page of results."""
