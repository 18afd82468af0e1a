"""The index: made once, mapped into memory by every rank."""
