"""What stands around the loop of train.py: its command line, the checks before it, its inputs, batches and clocks."""
