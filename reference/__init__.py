"""The executable specification: what the Intel SDM and the AMD APM say happens, as Python to read beside the manual.

Nothing here knows the fuzzer, an engine or a database. `run.run(image)` is the whole interface: an `image.Image` goes in,
an `image.Observation` comes out. Section numbers are those of the Intel SDM of 2023-2025 unless "APM" is written.
"""
