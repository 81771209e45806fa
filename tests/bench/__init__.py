"""`make bench`: how fast the relay is, as ratios to other ways of doing the same, within one run."""
