"""What takes a model: its likelihoods, its training, its unlearning step by step."""
