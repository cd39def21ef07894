"""HTTP: one file a surface. Parses, calls the client or a task, formats. Nothing here knows the model."""
