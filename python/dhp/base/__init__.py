"""Files and text that every room reads and writes."""
