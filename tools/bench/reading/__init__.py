"""The quality of reading: rendered pictures of known text, by kind, and what three readers make of them."""
