"""The methods, one file each. They import sah.attention, the foundations and libraries only."""
