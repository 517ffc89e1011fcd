"""Building blocks shared by every network and autoencoder."""
