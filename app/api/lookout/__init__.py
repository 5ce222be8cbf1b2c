"""The API of Amazon Lookout for Vision, for its clients: a project is a model, a model version is a version of it."""
