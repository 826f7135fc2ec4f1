"""Ray Tune over a recipe: which loss weights and which mixing of real and synthetic clips teach a recogniser most."""
