"""Costs of this machine: of local ranks, measured, and fitted again while a run goes on."""
