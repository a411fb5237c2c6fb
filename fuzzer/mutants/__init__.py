"""Planted bugs: targets and cores that are wrong in one place, and a score of what finds them."""
