"""The core `qemu`: QEMU system emulation, which delivers events itself."""
