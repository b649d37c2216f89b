"""The processes of jobs on this machine: forked from one that has imported what they need."""
