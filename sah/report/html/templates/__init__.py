"""Files of the HTML report."""
