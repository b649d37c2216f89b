"""Budget matching: the value of each attention's budget that measures as asked."""
