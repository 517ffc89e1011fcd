"""Small tools below everything else."""
