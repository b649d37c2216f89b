"""Published data sets, read from the Hugging Face Hub, its cache, or a local folder."""
