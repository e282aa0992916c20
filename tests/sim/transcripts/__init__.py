"""Golden transcripts: what happens in the flows everybody must understand, message by message."""
