"""Our families, played by other libraries' trainers. Importing a module here imports its library, if it needs one."""
