"""Models whose weights are split over several processes of one job."""
