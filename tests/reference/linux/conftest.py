"""The small entry code, `linux_small_entry`, can be imported by every test of the contract."""
