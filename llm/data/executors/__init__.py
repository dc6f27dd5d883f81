"""Who does the pieces of a preparation, each named by a file in conf/executor; datatrove is imported by its own alone."""
