"""The history of the schema, written by hand: one file in `versions/` and one entry here per step.

A test compares the result with the models and prints what a new step has to do.
"""

# Listed, so that a start-up needs neither Alembic nor the folder to see that there is nothing to do.
REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007")
HEAD = REVISIONS[-1]
