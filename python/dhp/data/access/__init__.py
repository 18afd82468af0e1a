"""Where bytes lie: on a disk, inside other files, at addresses; how they are opened, and what may be."""
