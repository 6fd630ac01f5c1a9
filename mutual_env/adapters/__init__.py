"""To and from other libraries' environments, a module each. Importing one imports its library; nothing else does."""
