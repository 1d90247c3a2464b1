"""cn-clip-tiny: how the model that ships with the project was trained, and its files. README.md is its card. No server
imports this.
"""
