"""Data: reading samples, the index, and the pixels and tokens of one's own share.

index    what planning needs of every sample; index_command is `dhp index`
dataset  samples, and each rank's share of a batch
draws    global batches, drawn from one file or several; order is an epoch's
text     messages -> ids, labels, media types (Encoder)
media    pixel rows of some units of a picture or clip (PixelReader)
samples  the data files users have; media may be in them (tars, tables, cells; pieces)
media_pool   processes that decode; frame_cache keeps what they have decoded
"""
