"""The core `bochs`: an emulator with a history of its own, which delivers events itself."""
