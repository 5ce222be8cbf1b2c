"""The recipe ``features``: an autoencoder over the features of a pretrained network."""
