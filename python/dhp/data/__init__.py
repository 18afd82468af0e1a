"""Data: reading samples, the index, and the pixels and tokens of one's own share.

index    what planning needs of every sample; `dhp index`
text     messages -> ids, labels, media types (Encoder)
media    pixel rows of some units of a picture or clip (PixelReader)
samples  the data files users have
"""
