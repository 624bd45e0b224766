"""Opens files of others in a separate process, which may crash or hang without harm."""
