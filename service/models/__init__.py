"""The models of the service: found in a folder, loaded and verified, looked up by name, swapped and unloaded."""
