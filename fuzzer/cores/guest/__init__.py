"""The harness that native engines run cases in: a guest program in system management mode, and its host side."""
