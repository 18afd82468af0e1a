"""Something to train on: `python -m dhp.demo FOLDER`."""
