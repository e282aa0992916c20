"""Routes and commands as a program meets them: HTTP alone, pipes, and the documents that list them."""
