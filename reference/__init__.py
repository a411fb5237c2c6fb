"""The executable specification: what the Intel SDM and the AMD APM say happens, as Python to read beside the manual.

Nothing here knows the fuzzer, an engine or a database. `run.run(image)` is the whole interface: an `image.Image` goes in,
an `image.Observation` comes out. Section numbers are those of the Intel SDM of 2025, in which paging is chapter 5 and
interrupts are chapter 7 of Vol. 3A, unless "APM" is written.
"""
