"""The parts of `canary`: what splits the traffic, how both sides perform, and the verdict."""
