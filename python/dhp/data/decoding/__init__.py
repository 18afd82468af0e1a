"""Pictures, clips and sounds as numbers, of the units that are asked for."""
