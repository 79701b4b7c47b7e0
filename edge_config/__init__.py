"""What an operator writes: the schema of the configuration, and how it is loaded and checked."""
