"""The training of cn-clip-tiny, the model that ships with the project. models/tiny/README.md is its card."""
