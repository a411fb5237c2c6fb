"""Somebody's own entry code as a target: an ELF file and a manifest that says what is what in it."""
