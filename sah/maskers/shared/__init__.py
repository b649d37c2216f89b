"""What several maskers share: hyperplanes, and the files of fitted methods."""
