"""A model on disk: manifest, TorchScript archive, signature and store; and operators' labels."""
