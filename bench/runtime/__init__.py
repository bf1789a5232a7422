"""The machine: devices, processes, files, progress."""
