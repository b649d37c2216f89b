"""Reading results: finding, choosing and ordering them, and their answers."""
