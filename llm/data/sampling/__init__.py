"""Which samples a batch is made of: windows of a stream, their order, and the turns of several streams."""
