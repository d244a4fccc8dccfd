"""What a trained model does for people who do not train: embed, search, complete, look around."""
