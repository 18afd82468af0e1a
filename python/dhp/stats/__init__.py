"""What an index says of the data: lengths, kinds, batches, and how long steps will take.

figures  the numbers
text     on the terminal
page     as one HTML file
command  `dhp index --stats`
"""
