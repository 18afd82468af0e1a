"""What a run says of itself: lines, records, traces, results."""
