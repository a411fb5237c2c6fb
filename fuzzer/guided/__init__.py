"""Guided fuzzing: cases that reach something new are kept and changed further. Knows no database, queue, clock or environment."""
