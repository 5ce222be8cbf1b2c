"""A model on disk: manifest, TorchScript archive, signature, store, operators' labels."""
