"""Text to a corpus on disk, once: cleaned, encoded, put together and reported; `prepare` begins it."""
