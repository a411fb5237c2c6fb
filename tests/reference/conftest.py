"""The builder of machines, `reference_machine`, can be imported by every test below this directory."""
