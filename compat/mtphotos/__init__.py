"""The protocol of mt-photos-ai."""
