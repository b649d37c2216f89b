"""What `sah plan` forecasts and shows."""
